"""Why a pod is not ready and a rollout hangs, in plain words."""

from __future__ import annotations

import pytest

from appliance_release.rollout.reasons import deployment_reasons, pod_reason
from tests.unit.release.rollout.recorded_cluster import (
    Object,
    deployment,
    pod,
    replica_set,
    waiting,
    warning,
)


def ended(code: int, message: str | None = None, reason: str = "Error") -> Object:
    return {"terminated": {"exitCode": code, "reason": reason, "message": message}}


def unschedulable(message: str) -> Object:
    return {"type": "PodScheduled", "status": "False", "message": message}


@pytest.mark.parametrize(
    ("container", "said"),
    [
        (waiting("ContainerCreating"), "the node is fetching the environment"),
        (waiting("ImagePullBackOff", "Back-off"), "the image flox/empty: Back-off"),
        (waiting("SomethingNew", "odd"), "SomethingNew: odd"),
        (waiting("CrashLoopBackOff", "back-off 10s"), "the server starts and ends again: back-off"),
        ({**waiting("CrashLoopBackOff"), "lastState": ended(3, "appliance: weights differ\n")},
         "the server ended with code 3, the model is refused: appliance: weights differ"),
        ({"state": ended(2, "appliance: --port")}, "code 2, a setting is wrong: appliance: --port"),
        ({**waiting("CrashLoopBackOff"), "lastState": ended(127)}, "has no such command"),
        ({"state": ended(0)}, "the server ended by itself"),
        ({"state": ended(137, reason="OOMKilled")}, "took more memory than its limit"),
        ({"state": {"running": {}}}, "its readiness probe has not succeeded yet"),
    ],
    ids=["creating", "image", "unknown", "crash", "refused", "setting", "command", "end", "memory",
         "running"],
)  # fmt: skip
def test_a_container_says_why(container: Object, said: str) -> None:
    assert said in pod_reason(pod(ready=False, container=container), [])


def test_the_shims_own_message_is_shown() -> None:
    events = [
        warning("older", at="2026-11-21T05:00:00Z"),
        warning("failed to start shim: acme/llama-runtime has no generation 9"),
        warning("of another pod", name="other", at="2026-11-21T07:00:00Z"),
    ]
    said = pod_reason(pod(ready=False, container=waiting("ContainerCreating")), events)
    assert said.endswith("has no generation 9")
    said = pod_reason(pod(ready=False, container=waiting("RunContainerError", "exit")), events)
    assert said.startswith("the node's Flox shim could not start the environment: failed to start")


def test_a_failing_probe_is_shown() -> None:
    events = [warning("Startup probe failed: HTTP probe failed with statuscode: 503")]
    assert "statuscode: 503" in pod_reason(pod(ready=False), events)


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("0/3 nodes: 3 node(s) didn't match node affinity/selector.", "flox.dev/enabled=true"),
        ("0/3 nodes: 3 Insufficient nvidia.com/gpu.", "gpu-scarce"),
        ("0/3 nodes: 3 Insufficient cpu.", "no node takes it: 0/3 nodes: 3 Insufficient cpu."),
    ],
)  # fmt: skip
def test_a_pod_that_no_node_takes_says_what_to_do(message: str, said: str) -> None:
    unscheduled = pod(ready=False, conditions=(unschedulable(message),))
    assert said in pod_reason(unscheduled, [])


def test_pods_that_are_refused_are_named_once() -> None:
    failure = {
        "type": "ReplicaFailure",
        "status": "True",
        "message": 'forbidden: RuntimeClass "flox" not found',
    }
    sets = [replica_set("a", failure), replica_set("b", failure)]
    assert deployment_reasons(deployment(), sets) == [
        'pods are refused: forbidden: RuntimeClass "flox" not found'
    ]


def test_a_paused_deployment_is_named() -> None:
    assert deployment_reasons(deployment(paused=True), []) == [
        "the Deployment is paused: kubectl rollout resume"
    ]


def test_a_long_message_is_cut() -> None:
    said = pod_reason(pod(ready=False, container={"state": ended(1, "x" * 5000)}), [])
    assert len(said) < 500
