"""What is changed for Kubernetes 1.20 is little, and all of it is told."""

from __future__ import annotations

import copy
from typing import Any

from tests.k8s.cluster.compat import down_convert


def made(kind: str, version: str, **spec: Any) -> dict[str, Any]:
    return {"kind": kind, "apiVersion": version, "metadata": {"name": "llama"}, "spec": spec}


def test_what_1_20_knows_is_left_as_it_is() -> None:
    service = made("Service", "v1", type="ClusterIP")
    converted, changes = down_convert([copy.deepcopy(service)])
    assert (converted, changes) == ([service], [])


def test_every_change_is_told() -> None:
    budget = made("PodDisruptionBudget", "policy/v1", unhealthyPodEvictionPolicy="AlwaysAllow")
    converted, changes = down_convert([budget])
    assert converted[0]["apiVersion"] == "policy/v1beta1"
    assert changes == [
        "PodDisruptionBudget llama: policy/v1 became policy/v1beta1",
        "PodDisruptionBudget llama: without unhealthyPodEvictionPolicy",
    ]


def test_what_1_20_does_not_know_at_all_is_left_out_and_named() -> None:
    policy = made("ValidatingAdmissionPolicy", "admissionregistration.k8s.io/v1")
    assert down_convert([policy]) == ([], ["ValidatingAdmissionPolicy llama: left out"])
