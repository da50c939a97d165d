"""Compares what a Deployment and its pods run with what is pinned."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import TYPE_CHECKING

from appliance.console.ink import short_hash
from appliance.errors import ReleaseError
from appliance_release.manifests.kubernetes_manifest import mapping, sequence, value_at
from appliance_release.pins.record import IDENTITY
from appliance_release.pins.reference import ANNOTATION, why_not_pinned
from appliance_release.rollout.reasons import deployment_reasons, pod_reason

if TYPE_CHECKING:
    from appliance_release.pins.record import PinRecord
    from appliance_release.rollout.kubectl import Cluster

    Object = dict[str, object]

NUM_ASKED_AT_ONCE = 8
ENDING = "Terminating"  # kubectl's word for it


class Verdict(IntEnum):
    """An exit code; of several the worst counts, which is the last one here."""

    OK = 0
    UNKNOWN = 13
    DRIFT = 10
    UNFINISHED = 14
    UNPINNED = 11
    TAMPERED = 12


BADNESS = list(Verdict)


def worst(*verdicts: Verdict) -> Verdict:
    return max(verdicts, key=BADNESS.index)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One Deployment of an overlay, and its pin."""

    namespace: str
    deployment: str
    pinned: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PodState:
    name: str
    configured: str | None
    phase: str
    is_ready: bool
    restarts: int
    port: int | None
    reason: str | None = None  # why it is not ready, in words
    reported: str | None = None
    hashes: dict[str, object] | None = None
    verdict: Verdict = Verdict.OK
    said: str | None = None  # why the verdict is not OK


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """`num_updated` pods run the present template; `num_available` of those are available."""

    target: Target
    configured: str | None
    num_wanted: int
    num_updated: int
    num_available: int
    num_old: int
    is_complete: bool
    has_failed: bool  # the progress deadline has passed
    reasons: list[str]
    pods: list[PodState]

    @property
    def verdict(self) -> Verdict:
        own = _compare(self.configured, self.target.pinned)[0]
        under_way = Verdict.UNFINISHED if own is Verdict.OK and not self.is_complete else own
        return worst(under_way, *(pod.verdict for pod in self.pods))


def read_rollout(cluster: Cluster, target: Target) -> Rollout:
    """Reads a rollout from Kubernetes' objects; asks no server."""
    objects = cluster.objects(target.namespace)
    deployment = _find(objects, target)
    sets = _owned(objects, "ReplicaSet", [deployment])
    pods = [
        pod
        for pod in _owned(objects, "Pod", sets)
        if value_at(pod, ("status", "phase")) not in {"Succeeded", "Failed"}  # evicted, say
    ]
    events = [each for each in objects if each.get("kind") == "Event"]
    spec, status = mapping(deployment.get("spec")), mapping(deployment.get("status"))
    wanted = _count(spec, "replicas", 1)
    updated, total = _count(status, "updatedReplicas"), _count(status, "replicas")
    available = _count(status, "availableReplicas")
    is_seen = _count(status, "observedGeneration") >= _count(
        mapping(deployment.get("metadata")), "generation"
    )
    failed = _condition(deployment, "Progressing").get("reason") == "ProgressDeadlineExceeded"
    configured = _annotation(value_at(spec, ("template",)))
    return Rollout(
        target=target,
        configured=configured,
        num_wanted=wanted,
        num_updated=updated if is_seen else 0,
        num_available=max(0, available - (total - updated)) if is_seen else 0,
        num_old=total - updated if is_seen else total,
        is_complete=is_seen and updated == wanted == total == available,
        has_failed=is_seen and failed,
        reasons=deployment_reasons(deployment, sets),
        pods=[_pod_state(pod, target.pinned, events) for pod in pods],
    )


def verify_pods(cluster: Cluster, rollout: Rollout, record: PinRecord | None) -> Rollout:
    """Asks every pod for its hashes, and compares them with the record of the generation."""

    def ask(pod: PodState) -> PodState:
        if pod.verdict is Verdict.UNPINNED or pod.phase == ENDING:
            return pod
        if pod.port is None:
            said = "no container port of it is called http, so it could not be asked"
            return replace(pod, verdict=worst(pod.verdict, Verdict.UNKNOWN), said=pod.said or said)
        if not pod.is_ready:
            return replace(
                pod, verdict=worst(pod.verdict, Verdict.UNKNOWN), said=pod.said or "not ready"
            )
        try:
            version = cluster.version(rollout.target.namespace, pod.name, pod.port)
        except ReleaseError as error:
            return replace(pod, verdict=worst(pod.verdict, Verdict.UNKNOWN), said=error.message)
        return judge(pod, version, record)

    with ThreadPoolExecutor(NUM_ASKED_AT_ONCE) as pool:
        return replace(rollout, pods=list(pool.map(ask, rollout.pods)))


def judge(pod: PodState, version: Object, record: PinRecord | None) -> PodState:
    """Judges one server's /version. `record` is that of the pinned generation."""
    generation = version.get("generation")
    reported = None if generation is None else str(generation)
    pod = replace(pod, reported=reported, hashes=mapping(version.get("hashes")))
    if reported is not None and pod.configured is not None and reported != pod.configured:
        said = f"it was started as {reported}, and its annotation was changed since"
        return replace(pod, verdict=Verdict.TAMPERED, said=said)
    if pod.verdict is Verdict.DRIFT:
        return pod  # another generation has other hashes
    if record is None or not record.identity:
        said = "no hashes of this generation are recorded: see `appliance pin record --help`"
        return replace(pod, verdict=Verdict.UNKNOWN, said=said)
    found = mapping(pod.hashes)
    wrong = [
        f"{name} {short_hash(found.get(name))}, recorded {short_hash(record.identity[name])}"
        for name in IDENTITY
        if found.get(name) != record.identity.get(name)
    ]
    if wrong:
        return replace(pod, verdict=Verdict.TAMPERED, said=f"reports {'; '.join(wrong)}")
    return replace(pod, verdict=Verdict.OK, said=None)


def _pod_state(pod: Object, pinned: str, events: list[Object]) -> PodState:
    configured = _annotation(pod)
    statuses = [mapping(each) for each in sequence(value_at(pod, ("status", "containerStatuses")))]
    is_ready = _condition(pod, "Ready").get("status") == "True"
    ending = value_at(pod, ("metadata", "deletionTimestamp")) is not None
    phase = ENDING if ending else str(value_at(pod, ("status", "phase")))
    # A pod that drains has ended its service: it counts as no drift.
    verdict, said = (Verdict.OK, None) if ending else _compare(configured, pinned)
    return PodState(
        name=str(value_at(pod, ("metadata", "name"))),
        configured=configured,
        phase=phase,
        is_ready=is_ready,
        restarts=sum(_count(status, "restartCount") for status in statuses),
        port=_port(pod),
        reason=None if is_ready or ending else pod_reason(pod, events),
        verdict=verdict,
        said=said,
    )


def _compare(configured: str | None, pinned: str) -> tuple[Verdict, str | None]:
    if configured is None:
        return Verdict.UNPINNED, f"has no {ANNOTATION}"
    problem = why_not_pinned(configured)
    if problem is not None:
        return (
            Verdict.UNPINNED,
            f"is configured with {configured!r}, which {problem.partition('. ')[0]}",
        )
    if configured != pinned:
        return Verdict.DRIFT, f"is configured with {configured}; pinned is {pinned}"
    return Verdict.OK, None


def _find(objects: list[Object], target: Target) -> Object:
    names = []
    for each in objects:
        if each.get("kind") == "Deployment":
            name = value_at(each, ("metadata", "name"))
            if name == target.deployment:
                return each
            names.append(str(name))
    there = f"There are: {', '.join(names)}." if names else "There is none."
    raise ReleaseError(
        f"Namespace {target.namespace} has no Deployment {target.deployment}. {there} "
        "Was the overlay applied, and to this cluster?"
    )


def _owned(objects: list[Object], kind: str, owners: list[Object]) -> list[Object]:
    ids = {value_at(owner, ("metadata", "uid")) for owner in owners}
    return [
        each
        for each in objects
        if each.get("kind") == kind
        and any(
            mapping(owner).get("uid") in ids
            for owner in sequence(value_at(each, ("metadata", "ownerReferences")))
        )
    ]


def _annotation(template: object) -> str | None:
    value = value_at(template, ("metadata", "annotations", ANNOTATION))
    return None if value is None else str(value)


def _condition(each: Object, kind: str) -> Object:
    conditions = sequence(value_at(each, ("status", "conditions")))
    found = (mapping(one) for one in conditions if mapping(one).get("type") == kind)
    return next(found, {})


def _port(pod: Object) -> int | None:
    for container in sequence(value_at(pod, ("spec", "containers"))):
        for port in sequence(mapping(container).get("ports")):
            number = mapping(port).get("containerPort")
            if mapping(port).get("name") == "http" and isinstance(number, int):
                return number
    return None


def _count(each: Object, name: str, default: int = 0) -> int:
    value = each.get(name, default)
    return value if isinstance(value, int) else default
