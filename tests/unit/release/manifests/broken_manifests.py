"""Ways to break the manifests that we ship, and what the lint must say of each."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

K8S = Path(__file__).parents[4] / "k8s"
PIN = "flox.dev/environment"

Object = dict[str, Any]


class Parts:
    """The plain manifest in its parts, to be broken."""

    def __init__(self) -> None:
        self.objects: list[Object] = list(yaml.safe_load_all((K8S / "llama.yaml").read_text()))

    def only(self, kind: str) -> Object:
        (found,) = [each for each in self.objects if each["kind"] == kind]
        return found

    @property
    def deployment(self) -> Object:
        return self.only("Deployment")

    @property
    def template(self) -> Object:
        return self.deployment["spec"]["template"]  # type: ignore[no-any-return]

    @property
    def notes(self) -> Object:
        return self.template["metadata"]["annotations"]  # type: ignore[no-any-return]

    @property
    def pod(self) -> Object:
        return self.template["spec"]  # type: ignore[no-any-return]

    @property
    def container(self) -> Object:
        return self.pod["containers"][0]  # type: ignore[no-any-return]

    def variable(self, name: str) -> Object:
        (found,) = [each for each in self.container["env"] if each["name"] == name]
        return found  # type: ignore[no-any-return]

    def without_variable(self, name: str) -> None:
        self.container["env"].remove(self.variable(name))

    def with_autoscaler(self) -> Object:
        """The one we ship, beside a Deployment as it has to be there."""
        del self.deployment["spec"]["replicas"]
        path = K8S / "components" / "hpa" / "horizontal-pod-autoscaler.yaml"
        scaler: Object = yaml.safe_load(path.read_text())
        scaler["metadata"]["namespace"] = "llama"
        self.objects.append(scaler)
        return scaler

    def write(self, path: Path) -> Path:
        path.write_text(yaml.safe_dump_all(self.objects, sort_keys=False))
        return path


@dataclass(frozen=True)
class Broken:
    what: str
    break_it: Callable[[Parts], object]
    field: str
    value: str  # as the message shows it
    remedy: str  # a part of it


POD = "spec.template.spec"
FIRST = f"{POD}.containers[0]"
DIGEST = f"example/proxy@sha256:{'0' * 64}"
ANNOTATION = f'spec.template.metadata.annotations["{PIN}"]'


def put(find: Callable[[Parts], Object], key: str, value: object) -> Callable[[Parts], None]:
    return lambda parts: find(parts).__setitem__(key, value)


def drop(find: Callable[[Parts], Object], key: str) -> Callable[[Parts], object]:
    return lambda parts: find(parts).pop(key)


def pin(value: object) -> Callable[[Parts], None]:
    return put(lambda parts: parts.notes, PIN, value)


def setting(name: str, value: object) -> Callable[[Parts], None]:
    def change(parts: Parts) -> None:
        variable = parts.variable(name)
        variable.pop("valueFrom", None)
        variable["value"] = value

    return change


def also(*variable: Object) -> Callable[[Parts], None]:
    return lambda parts: parts.container["env"].extend(copy.deepcopy(variable))


def scaled(change: Callable[[Object], object]) -> Callable[[Parts], object]:
    return lambda parts: change(parts.with_autoscaler())


def both_zero(parts: Parts) -> None:
    parts.deployment["spec"]["strategy"]["rollingUpdate"] = {"maxSurge": 0, "maxUnavailable": 0}


def recreate(parts: Parts) -> None:
    parts.deployment["spec"]["strategy"] = {"type": "Recreate"}


def runtime_class_last(parts: Parts) -> None:
    parts.objects.append(parts.objects.pop(0))


def misplaced_pin(parts: Parts) -> None:
    parts.deployment["metadata"]["annotations"] = {PIN: parts.notes.pop(PIN)}


def beside(kind: str, **facts: object) -> Callable[[Parts], None]:
    """Another container, as restricted as ours but for these facts."""

    def change(parts: Parts) -> None:
        other: Object = {"name": "other", "image": DIGEST, "command": ["true"]}
        other["securityContext"] = copy.deepcopy(parts.container["securityContext"])
        other["securityContext"] |= facts.pop("securityContext", {})
        parts.pod.setdefault(kind, []).append(other | facts)

    return change


def skipped(change: Callable[[Parts], None]) -> Callable[[Parts], None]:
    def skip(parts: Parts) -> None:
        change(parts)
        parts.notes["flox.dev/skip-containers"] = "some, other"

    return skip


def open_secret(parts: Parts) -> None:
    metadata = {"name": "floxhub-token", "namespace": "llama"}
    parts.objects.append(
        {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"t": "x"}}
    )


BROKEN = [
    Broken("no pin", drop(lambda p: p.notes, PIN), ANNOTATION, "absent", "acme/llama-runtime:2"),
    Broken("unpinned", pin("a/b"), ANNOTATION, '"a/b"', 'Pin one: "a/b:2"'),
    Broken("pinned with @", pin("a/b@2"), ANNOTATION, '"a/b@2"', '"a/b:2"'),
    Broken("latest", pin("a/b:latest"), ANNOTATION, '"a/b:latest"', "Pin one"),
    Broken("generation 0", pin("a/b:0"), ANNOTATION, '"a/b:0"', "Pin one"),
    Broken("no owner", pin("b:2"), ANNOTATION, '"b:2"', "Write it as in"),
    Broken("a number for a pin", pin(2), ANNOTATION, "2", "in quotes"),
    Broken("pin on the Deployment", misplaced_pin, f'metadata.annotations["{PIN}"]', '"acme',
           "pod template"),
    Broken("dev mode", put(lambda p: p.notes, "flox.dev/activate-mode", "dev"),
           'annotations["flox.dev/activate-mode"]', '"dev"', "Remove it"),
    Broken("mutable nix", put(lambda p: p.notes, "flox.dev/nix-mutable", "true"),
           'annotations["flox.dev/nix-mutable"]', '"true"', "Remove it"),
    Broken("unknown annotation", put(lambda p: p.notes, "flox.dev/generation", "2"),
           'annotations["flox.dev/generation"]', '"2"', "flox.dev/environment"),
    Broken("annotation not a string", put(lambda p: p.notes, "flox.dev/disable-metrics", True),
           'annotations["flox.dev/disable-metrics"]', "true", "quotes"),
    Broken("no runtime class", drop(lambda p: p.pod, "runtimeClassName"),
           f"{POD}.runtimeClassName", "absent", '"flox"'),
    Broken("image without tag", put(lambda p: p.container, "image", "flox/empty"),
           f"{FIRST}.image", '"flox/empty"', "flox/empty:1.0.0"),
    Broken("image latest", put(lambda p: p.container, "image", "flox/empty:latest"),
           f"{FIRST}.image", '"flox/empty:latest"', "flox/empty:1.0.0"),
    Broken("no command", drop(lambda p: p.container, "command"), f"{FIRST}.command", "absent",
           "llama-server"),
    Broken("service links", drop(lambda p: p.pod, "enableServiceLinks"),
           f"{POD}.enableServiceLinks", "absent", "false"),
    Broken("token", put(lambda p: p.pod, "automountServiceAccountToken", True),
           f"{POD}.automountServiceAccountToken", "true", "false"),
    Broken("no startup probe", drop(lambda p: p.container, "startupProbe"),
           f"{FIRST}.startupProbe", "absent", "/readyz"),
    Broken("no readiness probe", drop(lambda p: p.container, "readinessProbe"),
           f"{FIRST}.readinessProbe", "absent", "/readyz"),
    Broken("no liveness probe", drop(lambda p: p.container, "livenessProbe"),
           f"{FIRST}.livenessProbe", "absent", "/livez"),
    Broken("one endpoint for all", put(lambda p: p.container["livenessProbe"]["httpGet"], "path",
           "/readyz"), f"{FIRST}.livenessProbe.httpGet.path", '"/readyz"', "/livez"),
    Broken("readiness asks for life", put(lambda p: p.container["readinessProbe"]["httpGet"],
           "path", "/livez"), f"{FIRST}.readinessProbe.httpGet.path", '"/livez"', "/readyz"),
    Broken("probe of no port", put(lambda p: p.container["startupProbe"]["httpGet"], "port", 80),
           f"{FIRST}.startupProbe.httpGet.port", "80", "http"),
    Broken("impatient liveness", put(lambda p: p.container["livenessProbe"], "failureThreshold", 1),
           f"{FIRST}.livenessProbe.failureThreshold", "1", "30 s or more"),
    Broken("deadline before startup", put(lambda p: p.deployment["spec"],
           "progressDeadlineSeconds", 600), "spec.progressDeadlineSeconds", "600", "more than 600"),
    Broken("short grace", put(lambda p: p.pod, "terminationGracePeriodSeconds", 75),
           f"{POD}.terminationGracePeriodSeconds", "75", "more than 75"),
    Broken("default grace", drop(lambda p: p.pod, "terminationGracePeriodSeconds"),
           f"{POD}.terminationGracePeriodSeconds", "absent", "more than 75"),
    Broken("hook that eats the grace", put(lambda p: p.container, "lifecycle",
           {"preStop": {"sleep": {"seconds": 30}}}), f"{POD}.terminationGracePeriodSeconds", "85",
           "more than 105"),
    Broken("no lame duck", lambda p: p.without_variable("APPLIANCE_DRAIN_DELAY_S"),
           f"{FIRST}.env.APPLIANCE_DRAIN_DELAY_S", "absent", "such as 10"),
    Broken("unknown setting", also({"name": "APPLIANCE_TREADS", "value": "2"}),
           f"{FIRST}.env[10].name", '"APPLIANCE_TREADS"', "--help"),
    Broken("bad setting", setting("APPLIANCE_DRAIN_DELAY_S", "soon"), "env[6].value", '"soon"',
           "Correct it"),
    Broken("number for a setting", setting("APPLIANCE_PORT", 8000), "env[1].value", "8000",
           'Write "8000"'),
    Broken("default key", also({"name": "API_KEY", "value": "changeme"}), "env[10].value",
           '"changeme"', "secretKeyRef"),
    Broken("key in a Secret", open_secret, "stringData.t", '"x"', "k8s/README.md"),
    Broken("loopback", lambda p: p.without_variable("APPLIANCE_HOST"),
           f"{FIRST}.env.APPLIANCE_HOST", "absent", "0.0.0.0"),  # noqa: S104 - a message
    Broken("two ports", setting("APPLIANCE_PORT", "9000"), "env[1].value", '"9000"', "same"),
    Broken("threads of the node", lambda p: p.without_variable("APPLIANCE_THREADS"),
           f"{FIRST}.env.APPLIANCE_THREADS", "absent", "resourceFieldRef"),
    Broken("more threads than CPUs", setting("APPLIANCE_THREADS", "8"), "env[5].value", '"8"',
           "resourceFieldRef"),
    Broken("no memory request", drop(lambda p: p.container["resources"]["requests"], "memory"),
           f"{FIRST}.resources.requests.memory", "absent", "k8s/README.md"),
    Broken("no CPU request", drop(lambda p: p.container["resources"]["requests"], "cpu"),
           f"{FIRST}.resources.requests.cpu", "absent", "k8s/README.md"),
    Broken("memory limit", put(lambda p: p.container["resources"]["limits"], "memory", "2Gi"),
           f"{FIRST}.resources.limits.memory", '"2Gi"', "same as the request"),
    Broken("CPU limit", put(lambda p: p.container["resources"]["limits"], "cpu", "2"),
           f"{FIRST}.resources.limits.cpu", '"2"', "Remove it"),
    Broken("root", put(lambda p: p.pod["securityContext"], "runAsNonRoot", False),
           f"{FIRST}.securityContext.runAsNonRoot", "absent", "true"),
    Broken("privileged", put(lambda p: p.container["securityContext"], "privileged", True),
           f"{FIRST}.securityContext.privileged", "true", "Remove it"),
    Broken("escalation", drop(lambda p: p.container["securityContext"],
           "allowPrivilegeEscalation"), f"{FIRST}.securityContext.allowPrivilegeEscalation",
           "absent", "false"),
    Broken("host network", put(lambda p: p.pod, "hostNetwork", True), f"{POD}.hostNetwork", "true",
           "Remove it"),
    Broken("host path", put(lambda p: p.pod["volumes"][0], "hostPath", {"path": "/"}),
           f"{POD}.volumes[0].hostPath", '{"path": "/"}', "emptyDir"),
    Broken("network file system", put(lambda p: p.pod["volumes"][0], "nfs", {"path": "/"}),
           f"{POD}.volumes[0].nfs", '{"path": "/"}', "emptyDir"),
    Broken("user 0", put(lambda p: p.pod["securityContext"], "runAsUser", 0),
           f"{POD}.securityContext.runAsUser", "0", "65532"),
    Broken("user 0 of the container", put(lambda p: p.container["securityContext"], "runAsUser",
           0), f"{FIRST}.securityContext.runAsUser", "0", "65532"),
    Broken("capability", put(lambda p: p.container["securityContext"]["capabilities"], "add",
           ["SYS_ADMIN"]), f"{FIRST}.securityContext.capabilities.add", "SYS_ADMIN", "Remove it"),
    Broken("port of the node", put(lambda p: p.container["ports"][0], "hostPort", 80),
           f"{FIRST}.ports[0].hostPort", "80", "Remove it"),
    Broken("image with a tag that can move", put(lambda p: p.container, "image", "a/b:1.0"),
           f"{FIRST}.image", '"a/b:1.0"', "NAME@sha256"),
    Broken("bare image before the server", beside("initContainers", image="busybox"),
           f"{POD}.initContainers[0].image", '"busybox"', "NAME@sha256"),
    Broken("bare image to debug with", beside("ephemeralContainers", image="busybox:1"),
           f"{POD}.ephemeralContainers[0].image", '"busybox:1"', "NAME@sha256"),
    Broken("bare image that the shim skips", skipped(beside("containers", image="proxy:1")),
           f"{POD}.containers[1].image", '"proxy:1"', "NAME@sha256"),
    Broken("nothing to run before the server", beside("initContainers",
           image="flox/empty:1.0.0", command=[]), f"{POD}.initContainers[0].command", "[]",
           "llama-server"),
    Broken("privileged before the server", beside("initContainers", securityContext={
           "privileged": True}), f"{POD}.initContainers[0].securityContext.privileged", "true",
           "Remove it"),
    Broken("escalation that the shim skips", skipped(beside("containers", securityContext={
           "allowPrivilegeEscalation": True})),
           f"{POD}.containers[1].securityContext.allowPrivilegeEscalation", "true", "false"),
    Broken("key before the server", beside("initContainers", env=[{"name": "HF_TOKEN",
           "value": "hf_x"}]), f"{POD}.initContainers[0].env[0].value", '"hf_x"', "secretKeyRef"),
    Broken("every container skipped", put(lambda p: p.notes, "flox.dev/skip-containers", "llama"),
           'annotations["flox.dev/skip-containers"]', '"llama"', "Leave the server out"),
    Broken("no namespace", drop(lambda p: p.only("Service")["metadata"], "namespace"),
           "metadata.namespace", "absent", "kustomization.yaml"),
    Broken("runtime class last", runtime_class_last, "kind", '"RuntimeClass"', "first"),
    Broken("wrong targetPort", put(lambda p: p.only("Service")["spec"]["ports"][0], "targetPort",
           "web"), "spec.ports[0].targetPort", '"web"', "8000, http"),
    Broken("no protocol", drop(lambda p: p.only("Service")["spec"]["ports"][0], "protocol"),
           "spec.ports[0].protocol", "absent", "TCP"),
    Broken("service of nobody", put(lambda p: p.only("Service")["spec"], "selector", {"a": "b"}),
           "spec.selector", '{"a": "b"}', "pod template"),
    Broken("deployment of nobody", put(lambda p: p.deployment["spec"]["selector"], "matchLabels",
           {"a": "b"}), "spec.selector.matchLabels", '{"a": "b"}', "pod template"),
    Broken("recreate", recreate, "spec.strategy.type", '"Recreate"', "RollingUpdate"),
    Broken("unavailable", put(lambda p: p.deployment["spec"]["strategy"]["rollingUpdate"],
           "maxUnavailable", "25%"), "spec.strategy.rollingUpdate.maxUnavailable", '"25%"',
           "Write 0"),
    Broken("no move at all", both_zero, "spec.strategy.rollingUpdate.maxSurge", "0", "Write 1"),
    Broken("no undo", put(lambda p: p.deployment["spec"], "revisionHistoryLimit", 0),
           "spec.revisionHistoryLimit", "0", "10"),
    Broken("budget of nobody", put(lambda p: p.only("PodDisruptionBudget")["spec"]["selector"],
           "matchLabels", {"a": "b"}), "spec.selector.matchLabels", '{"a": "b"}', "pod template"),
    Broken("budget that blocks", put(lambda p: p.only("PodDisruptionBudget")["spec"],
           "maxUnavailable", 0), "spec.maxUnavailable", "0", "Write 1"),
    Broken("minAvailable", put(lambda p: p.only("PodDisruptionBudget")["spec"], "minAvailable", 2),
           "spec.minAvailable", "2", "maxUnavailable: 1"),
    Broken("open egress", put(lambda p: p.only("NetworkPolicy")["spec"], "policyTypes",
           ["Ingress"]), "spec.policyTypes", '["Ingress"]', "Egress"),
    Broken("autoscaler of nobody", scaled(lambda s: s["spec"]["scaleTargetRef"].update(name="x")),
           "spec.scaleTargetRef", '"name": "x"', "Deployment"),
    Broken("unknown metric", scaled(lambda s: s["spec"]["metrics"][0]["pods"]["metric"].update(
           name="llama_waiting")), "spec.metrics[0].pods.metric.name", '"llama_waiting"',
           "appliance_waiting_sequences"),
    Broken("scaled by CPU", scaled(lambda s: s["spec"]["metrics"].append({"type": "Resource",
           "resource": {"name": "cpu"}})), "spec.metrics[2].resource.name", '"cpu"',
           "appliance_waiting_sequences"),
]  # fmt: skip
