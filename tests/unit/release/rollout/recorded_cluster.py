"""A cluster that answers as kubectl does: a Deployment, its ReplicaSets, pods and events."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from appliance.errors import ReleaseError
from appliance_release.pins.reference import ANNOTATION
from appliance_release.rollout.state import Target

Object = dict[str, Any]

ENVIRONMENT = "acme/llama-runtime"
OLD, NEW = f"{ENVIRONMENT}:1", f"{ENVIRONMENT}:2"
TARGET = Target(namespace="llama-production", deployment="llama", pinned=NEW)
HASHES = {"weights": "a" * 64, "tokenizer": "b" * 64, "template": "c" * 64, "server": "d" * 64}


@dataclass
class RecordedCluster:
    items: list[Object]
    versions: dict[str, Object] = field(default_factory=dict)
    asked: list[tuple[str, str, int]] = field(default_factory=list)

    def objects(self, namespace: str) -> list[Object]:
        assert namespace == TARGET.namespace
        return self.items

    def version(self, namespace: str, pod: str, port: int) -> Object:
        self.asked.append((namespace, pod, port))
        if pod not in self.versions:
            raise ReleaseError("it did not answer GET /version: timed out.")
        return self.versions[pod]


def version(generation: str | None = NEW, **hashes: str | None) -> Object:
    return {"name": "llama-appliance", "generation": generation, "hashes": {**HASHES, **hashes}}


def deployment(
    configured: str | None = NEW,
    *,
    wanted: int = 2,
    updated: int = 2,
    total: int = 2,
    available: int = 2,
    conditions: tuple[Object, ...] = (),
    **spec: Any,
) -> Object:
    annotations = {} if configured is None else {ANNOTATION: configured}
    return {
        "kind": "Deployment",
        "metadata": {"name": "llama", "uid": "deployment", "generation": 4},
        "spec": {
            "replicas": wanted,
            "progressDeadlineSeconds": 900,
            "template": {"metadata": {"annotations": annotations}},
            **spec,
        },
        "status": {
            "observedGeneration": 4,
            "replicas": total,
            "updatedReplicas": updated,
            "availableReplicas": available,
            "conditions": list(conditions),
        },
    }


def replica_set(uid: str = "new", *conditions: Object) -> Object:
    owner = {"kind": "Deployment", "uid": "deployment"}
    return {
        "kind": "ReplicaSet",
        "metadata": {"name": f"llama-{uid}", "uid": uid, "ownerReferences": [owner]},
        "status": {"conditions": list(conditions)},
    }


def pod(
    name: str = "llama-new-1",
    configured: str | None = NEW,
    *,
    owner: str = "new",
    ready: bool = True,
    container: Object | None = None,
    conditions: tuple[Object, ...] = (),
    **metadata: Any,
) -> Object:
    annotations = {} if configured is None else {ANNOTATION: configured}
    status = "True" if ready else "False"
    return {
        "kind": "Pod",
        "metadata": {
            "name": name,
            "uid": f"uid-{name}",
            "annotations": annotations,
            "ownerReferences": [{"kind": "ReplicaSet", "uid": owner}],
            **metadata,
        },
        "spec": {"containers": [{"ports": [{"name": "http", "containerPort": 8000}]}]},
        "status": {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": status}, *conditions],
            "containerStatuses": [{"restartCount": 0, **(container or {})}],
        },
    }


def waiting(reason: str, message: str | None = None) -> Object:
    return {"state": {"waiting": {"reason": reason, "message": message}}}


def warning(message: str, name: str = "llama-new-1", at: str = "2026-11-21T06:00:00Z") -> Object:
    return {
        "kind": "Event",
        "type": "Warning",
        "message": message,
        "lastTimestamp": at,
        "involvedObject": {"uid": f"uid-{name}"},
    }


def settled(*pods: Object) -> RecordedCluster:
    """Two pods of the new generation, ready."""
    made = pods or (pod("llama-new-1"), pod("llama-new-2"))
    return RecordedCluster([deployment(), replica_set(), *made])
