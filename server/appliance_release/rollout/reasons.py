"""Says why a rollout does not go on, from conditions, waiting reasons and events."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance_release.manifests.kubernetes_manifest import mapping, sequence, value_at

if TYPE_CHECKING:
    from collections.abc import Iterator

    Object = dict[str, object]

MAX_MESSAGE_CHARS = 400

# Kubernetes' reason, and its meaning for a server of ours.
WAITING = {
    "CrashLoopBackOff": "the server starts and ends again",
    "CreateContainerConfigError": "a Secret, ConfigMap or field that it refers to is missing",
    "CreateContainerError": "the node could not make the container",
    "ContainerCreating": "the node is fetching the environment, or mounting volumes",
    "ErrImagePull": "the node cannot fetch the image flox/empty",
    "ImagePullBackOff": "the node cannot fetch the image flox/empty",
    "RunContainerError": "the node's Flox shim could not start the environment",
    "PodInitializing": "its init containers have not finished",
}


def deployment_reasons(deployment: Object, sets: list[Object]) -> list[str]:
    """Returns reasons above the pods: a deadline that has passed, pods that are refused."""
    found = list(_conditions(deployment))
    for replica_set in sets:
        found += [
            f"pods are refused: {_text(condition.get('message'))}"
            for condition in _all_conditions(replica_set)
            if condition.get("type") == "ReplicaFailure" and condition.get("status") == "True"
        ]
    if value_at(deployment, ("spec", "paused")) is True:
        found.append("the Deployment is paused: kubectl rollout resume")
    return list(dict.fromkeys(found))


def _conditions(deployment: Object) -> Iterator[str]:
    for condition in _all_conditions(deployment):
        if condition.get("reason") == "ProgressDeadlineExceeded":
            seconds = value_at(deployment, ("spec", "progressDeadlineSeconds"))
            yield (
                f"nothing has moved for {seconds} s, so the rollout counts as failed. What ran "
                "before goes on serving; it goes on by itself if the cause is gone"
            )


def pod_reason(pod: Object, events: list[Object]) -> str:
    """Returns the most specific reason why a pod is not ready."""
    for reason in (_unscheduled(pod), _container(pod, events)):
        if reason:
            return reason
    return _last_warning(pod, events) or "it runs, and its readiness probe has not succeeded yet"


def _unscheduled(pod: Object) -> str | None:
    for condition in _all_conditions(pod):
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return f"no node takes it: {_text(condition.get('message'))}{_hint(condition)}"
    return None


def _hint(condition: Object) -> str:
    message = str(condition.get("message"))
    if "node affinity" in message or "node selector" in message:
        return " Nodes with the Flox shim carry the label flox.dev/enabled=true."
    if "nvidia.com/gpu" in message:
        return " If no GPU is free beside the old pods, use the component gpu-scarce."
    return ""


def _container(pod: Object, events: list[Object]) -> str | None:
    for status in sequence(value_at(pod, ("status", "containerStatuses"))):
        waiting = mapping(value_at(status, ("state", "waiting")))
        ended = mapping(
            value_at(status, ("state", "terminated"))
            or value_at(status, ("lastState", "terminated"))
        )
        reason = str(waiting.get("reason", ""))
        if ended and reason in {"", "CrashLoopBackOff"}:
            said = f": {_text(ended.get('message'))}" if ended.get("message") else ""
            return f"{_end(ended)}{said}"
        if reason:
            warning = _last_warning(pod, events)
            own = _text(waiting.get("message")) if waiting.get("message") else None
            return ": ".join(filter(None, [WAITING.get(reason, reason), warning or own]))
    return None


def _end(ended: Object) -> str:
    if ended.get("reason") == "OOMKilled":
        return "the server took more memory than its limit and was killed"
    code = ended.get("exitCode")
    if code == 0:
        return "the server ended by itself"
    return f"the server ended with code {code}{_MEANINGS.get(code, '')}"


_MEANINGS: dict[object, str] = {
    2: ", a setting is wrong",
    3: ", the model is refused",
    127: ", the environment has no such command",
    137: ", it was killed",
}


def _last_warning(pod: Object, events: list[Object]) -> str | None:
    """Returns the last warning among the pod's events, where the shim reports."""
    uid = value_at(pod, ("metadata", "uid"))
    warnings = [
        event
        for event in events
        if event.get("type") == "Warning" and value_at(event, ("involvedObject", "uid")) == uid
    ]
    if not warnings:
        return None
    latest = max(
        warnings, key=lambda event: str(event.get("lastTimestamp") or event.get("eventTime"))
    )
    return _text(latest.get("message"))


def _all_conditions(each: Object) -> Iterator[Object]:
    return (mapping(one) for one in sequence(value_at(each, ("status", "conditions"))))


def _text(message: object) -> str:
    """Shortens a message to one line of bounded length."""
    text = " ".join(str(message).split())
    return text if len(text) <= MAX_MESSAGE_CHARS else text[:MAX_MESSAGE_CHARS] + "…"
