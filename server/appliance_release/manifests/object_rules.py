"""Checks how Kubernetes objects agree: selectors, ports, budgets, autoscalers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.metrics import Metrics
from appliance_release.manifests.kubernetes_manifest import amount, mapping, value_at
from appliance_release.pins.reference import ANNOTATION

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from appliance_release.manifests.kubernetes_manifest import Finding, Manifest
    from appliance_release.manifests.yaml_document import Path

# The kinds here that belong to no namespace.
CLUSTER_WIDE = {
    "ClusterRole",
    "ClusterRoleBinding",
    "CustomResourceDefinition",
    "Namespace",
    "PriorityClass",
    "RuntimeClass",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
}
EMPTY_IMAGES = ("flox/empty", "docker.io/flox/empty")
ROLLOUT = ("spec", "strategy", "rollingUpdate")


def check_namespaces(manifests: Sequence[Manifest]) -> Iterator[Finding]:
    for manifest in manifests:
        if manifest.kind not in CLUSTER_WIDE and not manifest.namespace:
            yield manifest.finding(
                ("metadata", "namespace"),
                "it would go wherever the caller's kubectl happens to point.",
                "Set the namespace in the overlay's kustomization.yaml.",
            )


def check_order(manifests: Sequence[Manifest]) -> Iterator[Finding]:
    """Checks the order of objects: one apply creates them in the order of the file."""
    kinds = [manifest.kind for manifest in manifests]
    for index, manifest in enumerate(manifests):
        if manifest.kind == "RuntimeClass" and "Deployment" in kinds[:index]:
            yield manifest.finding(
                ("kind",),
                "it comes after the Deployment, whose pods are refused until it is there.",
                "Apply it first, from a file of its own as in k8s/cluster/.",
            )


def check_services(manifests: Sequence[Manifest]) -> Iterator[Finding]:
    for service in _of_kind(manifests, "Service"):
        pods = [pod for each in _beside(manifests, service) if (pod := each.pod()) is not None]
        chosen = [pod for pod in pods if _selects(service.mapping("spec", "selector"), pod.labels)]
        if pods and not chosen:
            yield service.finding(
                ("spec", "selector"),
                "it selects none of the pods here, so requests go nowhere.",
                "Name labels of the pod template.",
            )
        if service.at("spec", "publishNotReadyAddresses"):
            yield service.finding(
                ("spec", "publishNotReadyAddresses"),
                "requests go to servers that still load their model.",
                "Remove it.",
            )
        for index, port in enumerate(service.sequence("spec", "ports")):
            target = mapping(port).get("targetPort", mapping(port).get("port"))
            if chosen and not any(target in pod.ports() for pod in chosen):
                yield service.finding(
                    ("spec", "ports", index, "targetPort"),
                    "no container of the pods that it selects has such a port.",
                    f"They have {_words(set().union(*(pod.ports() for pod in chosen)))}.",
                )
            if "protocol" not in mapping(port):
                yield service.finding(
                    ("spec", "ports", index, "protocol"),
                    "server-side apply needs it to tell ports apart.",
                    "Write TCP.",
                )


def check_selectors(manifests: Sequence[Manifest]) -> Iterator[Finding]:
    for manifest in _of_kind(manifests, "Deployment"):
        pod = manifest.pod()
        labels = manifest.mapping("spec", "selector", "matchLabels")
        if pod is not None and (not labels or not _selects(labels, pod.labels)):
            yield manifest.finding(
                ("spec", "selector", "matchLabels"),
                "it does not select the Deployment's own pods.",
                "Make it part of the pod template's labels.",
            )


def check_rollouts(manifests: Sequence[Manifest]) -> Iterator[Finding]:
    for manifest in _of_kind(manifests, "Deployment"):
        if manifest.at("spec", "strategy", "type") == "Recreate":
            yield manifest.finding(
                ("spec", "strategy", "type"),
                "every server ends before the first new one is ready.",
                "Write RollingUpdate; with scarce GPUs maxUnavailable 1 and maxSurge 0.",
            )
        elif amount(manifest.at(*ROLLOUT, "maxSurge")) == 0:
            if amount(manifest.at(*ROLLOUT, "maxUnavailable")) == 0:
                yield manifest.finding(
                    (*ROLLOUT, "maxSurge"),
                    "with maxUnavailable 0 as well no pod could ever be replaced.",
                    "Write 1.",
                )
        elif amount(manifest.at(*ROLLOUT, "maxUnavailable")) != 0:
            yield manifest.finding(
                (*ROLLOUT, "maxUnavailable"),
                "a server may end before the one that replaces it is ready.",
                "Write 0.",
            )
        if amount(manifest.at("spec", "revisionHistoryLimit")) == 0:
            yield manifest.finding(
                ("spec", "revisionHistoryLimit"),
                "`kubectl rollout undo` would have nothing to return to.",
                "Write 10.",
            )


def check_budgets(manifests: Sequence[Manifest]) -> Iterator[Finding]:
    for budget in _of_kind(manifests, "PodDisruptionBudget"):
        labels = budget.mapping("spec", "selector", "matchLabels")
        pods = [pod for each in _beside(manifests, budget) if (pod := each.pod()) is not None]
        if pods and not any(_selects(labels, pod.labels) for pod in pods):
            yield budget.finding(
                ("spec", "selector", "matchLabels"),
                "it selects none of the pods here and protects nothing.",
                "Name labels of the pod template.",
            )
        if amount(budget.at("spec", "maxUnavailable")) == 0:
            yield budget.finding(
                ("spec", "maxUnavailable"), "no node could ever be drained.", "Write 1."
            )
        if budget.at("spec", "minAvailable") is not None:
            yield budget.finding(
                ("spec", "minAvailable"),
                "with as many replicas or fewer no node could be drained.",
                "Use maxUnavailable: 1, which holds for any number.",
            )


def check_autoscalers(manifests: Sequence[Manifest]) -> Iterator[Finding]:
    exported = exported_metrics()
    for scaler in _of_kind(manifests, "HorizontalPodAutoscaler"):
        target = scaler.mapping("spec", "scaleTargetRef")
        found = [
            each
            for each in _beside(manifests, scaler)
            if (each.kind, each.name) == (target.get("kind"), target.get("name"))
        ]
        if not found:
            yield scaler.finding(
                ("spec", "scaleTargetRef"),
                "nothing here has that kind and name.",
                "Name the Deployment.",
            )
        for each in found:
            if each.at("spec", "replicas") is not None:
                yield each.finding(
                    ("spec", "replicas"),
                    "every apply would undo what the autoscaler decided.",
                    "Remove it; the autoscaler has minReplicas.",
                )
        yield from _check_metrics(scaler, exported)


def _check_metrics(scaler: Manifest, exported: set[str]) -> Iterator[Finding]:
    for index, metric in enumerate(scaler.sequence("spec", "metrics")):
        path = ("spec", "metrics", index)
        if mapping(metric).get("type") == "Resource":
            yield scaler.finding(
                (*path, "resource", "name"),
                "a server that answers one request uses all of its CPUs, and memory never shrinks.",
                "Scale by appliance_waiting_sequences.",
            )
        name = value_at(metric, ("pods", "metric", "name"))
        if name is not None and name not in exported:
            yield scaler.finding(
                (*path, "pods", "metric", "name"),
                "the server exports no such gauge.",
                f"It exports {_words(exported)}.",
            )


def check_secrets(manifests: Sequence[Manifest]) -> Iterator[Finding]:
    for secret in _of_kind(manifests, "Secret"):
        for name in ("data", "stringData"):
            if secret.at(name):
                yield secret.finding(
                    (name, *list(secret.mapping(name))[:1]),
                    "a key in a repository is everybody's key.",
                    "Make the Secret in the cluster, as k8s/README.md shows.",
                )


def check_network(manifests: Sequence[Manifest]) -> Iterator[Finding]:
    for policy in _of_kind(manifests, "NetworkPolicy"):
        if "Egress" not in policy.sequence("spec", "policyTypes"):
            yield policy.finding(
                ("spec", "policyTypes"),
                "the pods may reach everything, which a server has no need of.",
                "Write [Ingress, Egress].",
            )

        for name, side in (("egress", "to"), ("ingress", "from")):
            for index, rule in enumerate(policy.sequence("spec", name)):
                if not mapping(rule).get(side):
                    yield policy.finding(
                        ("spec", name, index),
                        f"without `{side}` it is open to every address.",
                        f"Name who is meant under `{side}`, or remove it.",
                    )


def check_policy_targets(manifests: Sequence[Manifest]) -> Iterator[Finding]:
    for policy in _of_kind(manifests, "NetworkPolicy"):
        labels = policy.mapping("spec", "podSelector", "matchLabels")
        pods = [pod for each in _beside(manifests, policy) if (pod := each.pod()) is not None]
        if pods and not any(_selects(labels, pod.labels) for pod in pods):
            yield policy.finding(
                ("spec", "podSelector"),
                "it selects none of the pods here and guards nothing.",
                "Name labels of the pod template.",
            )


def check_unknown_kinds(manifests: Sequence[Manifest]) -> Iterator[Finding]:
    for manifest in manifests:
        path = _flox_within(manifest.document.value, ())
        if manifest.pod() is None and path is not None:
            yield manifest.finding(
                path,
                f"a {manifest.kind} is not read here, so nothing of its pods was checked.",
                "Use a Deployment, or check what it makes: its pods, once they are there.",
            )


def _flox_within(value: object, path: Path) -> Path | None:
    """Returns where an object says that Flox makes its pods."""
    steps: list[tuple[str | int, object]] = []
    if isinstance(value, dict):
        for key, each in value.items():
            is_runtime = key == "runtimeClassName" and each == "flox"
            is_image = key == "image" and str(each).startswith(EMPTY_IMAGES)
            if key == ANNOTATION or is_runtime or is_image:
                return (*path, key)
        steps = list(value.items())
    elif isinstance(value, list):
        steps = list(enumerate(value))
    found = (_flox_within(each, (*path, step)) for step, each in steps)
    return next((each for each in found if each is not None), None)


def exported_metrics() -> set[str]:
    """Returns the gauges that an autoscaler can use."""
    return {metric.name for metric in Metrics().collect() if metric.type == "gauge"} & {
        "appliance_waiting_sequences",
        "appliance_running_sequences",
        "appliance_kv_used_blocks",
    }


def _of_kind(manifests: Sequence[Manifest], kind: str) -> Iterator[Manifest]:
    return (manifest for manifest in manifests if manifest.kind == kind)


def _beside(manifests: Sequence[Manifest], other: Manifest) -> Iterator[Manifest]:
    return (manifest for manifest in manifests if manifest.namespace == other.namespace)


def _selects(selector: dict[str, object], labels: dict[str, object]) -> bool:
    return selector.items() <= labels.items()


def _words(values: set[object] | set[str]) -> str:
    return ", ".join(sorted(map(str, values)))


OBJECT_RULES = (
    check_namespaces,
    check_order,
    check_services,
    check_selectors,
    check_rollouts,
    check_budgets,
    check_autoscalers,
    check_secrets,
    check_network,
    check_policy_targets,
    check_unknown_kinds,
)
