"""What runs is compared with what is pinned, and of several verdicts the worst counts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from appliance.errors import ReleaseError
from appliance_release.pins.record import PinRecord
from appliance_release.rollout.state import Rollout, Verdict, read_rollout, verify_pods
from tests.unit.release.rollout.recorded_cluster import (
    HASHES,
    NEW,
    OLD,
    TARGET,
    RecordedCluster,
    deployment,
    pod,
    replica_set,
    settled,
    version,
    waiting,
)

RECORD = PinRecord(reference=NEW, identity=dict(HASHES))
PODS = ("llama-new-1", "llama-new-2")


def verified(cluster: RecordedCluster, record: PinRecord | None = RECORD) -> Rollout:
    return verify_pods(cluster, read_rollout(cluster, TARGET), record)


def answering(**hashes: str | None) -> RecordedCluster:
    cluster = settled()
    cluster.versions = {PODS[0]: version(), PODS[1]: version(**hashes)}
    return cluster


def test_a_finished_rollout_of_the_pin_is_ok() -> None:
    rollout = read_rollout(settled(), TARGET)
    assert rollout.is_complete
    assert rollout.verdict is Verdict.OK
    assert [each.name for each in rollout.pods] == list(PODS)


def test_servers_that_report_what_was_recorded_are_ok() -> None:
    cluster = answering()
    rollout = verified(cluster)
    assert rollout.verdict is Verdict.OK
    assert rollout.pods[0].reported == NEW
    assert sorted(cluster.asked) == [(TARGET.namespace, name, 8000) for name in PODS]


@pytest.mark.parametrize("name", ["weights", "tokenizer", "template", "server"])
def test_other_hashes_than_recorded_are_tampering(name: str) -> None:
    rollout = verified(answering(**{name: "f" * 64}))
    assert rollout.verdict is Verdict.TAMPERED
    assert rollout.pods[0].verdict is Verdict.OK
    assert f"{name} ffffffffffff, recorded {HASHES[name][:12]}" in str(rollout.pods[1].said)


def test_an_annotation_that_was_changed_under_a_running_pod_is_tampering() -> None:
    cluster = settled(pod("llama-new-1"))
    cluster.versions = {"llama-new-1": version(OLD)}
    rollout = verified(cluster)
    assert rollout.verdict is Verdict.TAMPERED
    assert f"it was started as {OLD}" in str(rollout.pods[0].said)


def test_without_a_record_it_is_unknown() -> None:
    for record in (None, PinRecord(reference=NEW)):
        rollout = verified(answering(), record)
        assert rollout.verdict is Verdict.UNKNOWN
        assert "no hashes of this generation are recorded" in str(rollout.pods[0].said)


def test_a_server_that_does_not_answer_is_unknown() -> None:
    cluster = answering()
    del cluster.versions[PODS[1]]
    rollout = verified(cluster)
    assert rollout.verdict is Verdict.UNKNOWN
    assert "timed out" in str(rollout.pods[1].said)


def test_a_pod_that_is_not_ready_is_not_asked() -> None:
    cluster = settled(pod(ready=False))
    rollout = verified(cluster)
    assert cluster.asked == []
    assert rollout.pods[0].verdict is Verdict.UNKNOWN


def test_a_pod_that_cannot_be_asked_is_unknown_and_not_ok() -> None:
    unnamed = pod("llama-new-1")
    unnamed["spec"]["containers"][0]["ports"][0]["name"] = "web"
    rollout = verified(settled(unnamed))
    assert rollout.verdict is Verdict.UNKNOWN
    assert "is called http, so it could not be asked" in str(rollout.pods[0].said)


@pytest.mark.parametrize("configured", [None, "acme/llama-runtime", "acme/llama-runtime@2"])
def test_a_pod_that_has_no_generation_is_unpinned(configured: str | None) -> None:
    cluster = settled(pod("llama-new-1", configured), pod("llama-new-2"))
    cluster.versions = dict.fromkeys(PODS, version())
    assert read_rollout(cluster, TARGET).verdict is Verdict.UNPINNED
    assert verified(cluster).verdict is Verdict.UNPINNED


def test_a_deployment_with_another_generation_is_drift() -> None:
    cluster = RecordedCluster([deployment(OLD), replica_set(), pod(configured=OLD)])
    cluster.versions = {"llama-new-1": version(OLD, weights="f" * 64)}
    assert read_rollout(cluster, TARGET).verdict is Verdict.DRIFT
    assert verified(cluster).verdict is Verdict.DRIFT


def test_a_rollout_under_way_counts_new_and_old_pods() -> None:
    items = [
        deployment(updated=1, total=3, available=2),
        replica_set("new"),
        replica_set("old"),
        pod("llama-new-1", ready=False, container=waiting("ContainerCreating")),
        pod("llama-old-1", OLD, owner="old"),
        pod("llama-old-2", OLD, owner="old"),
    ]
    rollout = read_rollout(RecordedCluster(items), TARGET)
    counts = (rollout.num_wanted, rollout.num_updated, rollout.num_available, rollout.num_old)
    assert counts == (2, 1, 0, 2)
    assert not rollout.is_complete
    assert rollout.verdict is Verdict.UNFINISHED
    assert rollout.pods[1].verdict is Verdict.DRIFT


def test_pods_that_are_there_but_not_available_are_not_finished() -> None:
    items = [deployment(available=1), replica_set(), pod(), pod("llama-new-2", ready=False)]
    rollout = read_rollout(RecordedCluster(items), TARGET)
    assert rollout.verdict is Verdict.UNFINISHED
    assert rollout.num_available == 1


def test_what_the_controller_has_not_seen_yet_is_not_finished() -> None:
    unseen = deployment()
    unseen["metadata"]["generation"] = 5
    rollout = read_rollout(RecordedCluster([unseen, replica_set(), pod()]), TARGET)
    assert not rollout.is_complete
    assert (rollout.num_updated, rollout.num_old) == (0, 2)


def test_a_rollout_whose_deadline_passed_has_failed() -> None:
    condition = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}
    items = [deployment(updated=1, total=3, available=2, conditions=(condition,)), replica_set()]
    rollout = read_rollout(RecordedCluster(items), TARGET)
    assert rollout.has_failed
    assert "nothing has moved for 900 s" in rollout.reasons[0]


def test_pods_of_others_and_those_that_ended_do_not_count() -> None:
    evicted = pod("llama-evicted", OLD)
    evicted["status"]["phase"] = "Failed"
    cluster = settled(pod(), pod("other", None, owner="somebody"), evicted)
    assert [each.name for each in read_rollout(cluster, TARGET).pods] == ["llama-new-1"]


def test_a_pod_that_ends_is_shown_as_ending() -> None:
    cluster = settled(pod(ready=False, deletionTimestamp="2026-11-21T06:00:00Z"))
    (ending,) = read_rollout(cluster, TARGET).pods
    assert (ending.phase, ending.reason) == ("Terminating", None)


def test_a_deployment_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(ReleaseError, match=r"has no Deployment llama-canary\. There are: llama\."):
        read_rollout(settled(), replace(TARGET, deployment="llama-canary"))
    with pytest.raises(ReleaseError, match=r"There is none\. Was the overlay applied"):
        read_rollout(RecordedCluster([]), TARGET)


def test_no_two_verdicts_share_an_exit_code_nor_take_one_of_others() -> None:
    assert len({int(verdict) for verdict in Verdict}) == len(Verdict)
    assert {int(verdict) for verdict in Verdict}.isdisjoint({1, 2, 3, 4})
