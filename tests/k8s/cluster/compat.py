"""Rewrites manifests for the Kubernetes 1.20 that the tests run, and lists what was dropped."""

from __future__ import annotations

from typing import Any

Object = dict[str, Any]

# What 1.20 does not know at all.
UNKNOWN = {"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"}
OLDER = {"PodDisruptionBudget": "policy/v1beta1", "HorizontalPodAutoscaler": "autoscaling/v2beta2"}


def down_convert(objects: list[Object]) -> tuple[list[Object], list[str]]:
    """Only what 1.20 lacks is changed; it refuses by itself whatever is missed here."""
    kept, changes = [], []
    for found in objects:
        name = f"{found['kind']} {found['metadata']['name']}"
        if found["kind"] in UNKNOWN:
            changes.append(f"{name}: left out")
            continue
        changes += [f"{name}: {change}" for change in convert(found)]
        kept.append(found)
    return kept, changes


def convert(found: Object) -> list[str]:
    """What was changed in it, in place."""
    changes = []
    if older := OLDER.get(found["kind"]):
        changes.append(f"{found['apiVersion']} became {older}")
        found["apiVersion"] = older
    if found["kind"] == "PodDisruptionBudget" and found["spec"].pop(
        "unhealthyPodEvictionPolicy", None
    ):
        changes.append("without unhealthyPodEvictionPolicy")
    if found["kind"] == "Deployment":
        pod = found["spec"]["template"]["spec"]
        changes += [
            f"{constraint['topologyKey']} without matchLabelKeys"
            for constraint in pod.get("topologySpreadConstraints", [])
            if constraint.pop("matchLabelKeys", None)
        ]
    return changes
