"""`appliance rollout`: what it prints of a cluster, while it watches and when it is done."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from appliance.cli.main import build_parser, main
from appliance.console.ink import Ink
from appliance.console.terminal import Terminal
from appliance.errors import ReleaseError
from appliance_release.cli.rollout import bar, progress, show, watch
from appliance_release.pins.record import PinRecord, write_record
from appliance_release.pins.reference import parse_reference
from appliance_release.rollout.state import Verdict, read_rollout
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


class Screen(io.StringIO):
    """A terminal that remembers what was written to it."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def ask(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    def ask(cluster: RecordedCluster, *words: str) -> tuple[int, str]:
        arguments = build_parser().parse_args(
            ["rollout", *words, "production", "--directory", str(tmp_path)]
        )
        code = show(cluster, TARGET, arguments, Terminal(None), Ink(is_coloured=False))
        return code, capsys.readouterr().out

    return ask


Ask = Callable[..., tuple[int, str]]


def half_way(**container: Any) -> RecordedCluster:
    return RecordedCluster(
        [
            deployment(updated=1, total=3, available=2),
            replica_set("new"),
            replica_set("old"),
            pod("llama-new-1", ready=False, container=container or waiting("ContainerCreating")),
            pod("llama-old-1", OLD, owner="old"),
            pod("llama-old-2", OLD, owner="old"),
        ]
    )


def test_a_finished_rollout_is_shown_in_a_few_lines(ask: Ask) -> None:
    assert ask(settled(), "status") == (
        0,
        """Deployment llama in llama-production
  pinned   acme/llama-runtime:2
  applied  acme/llama-runtime:2
  rollout  finished: 2 of 2 available

  llama-new-1  acme/llama-runtime:2, ready
  llama-new-2  acme/llama-runtime:2, ready

  ok: what runs is what is pinned
""",
    )


def test_a_rollout_that_hangs_says_why(ask: Ask) -> None:
    refused = {"terminated": {"exitCode": 3, "message": "appliance: weights differ"}}
    cluster = half_way(restartCount=4, lastState=refused, **waiting("CrashLoopBackOff"))
    code, said = ask(cluster, "status")
    assert code == Verdict.UNFINISHED
    assert "rollout  under way: 0 of 2 new pods available, 2 old still there" in said
    assert "llama-new-1  acme/llama-runtime:2, running, 4 restarts" in said
    assert "code 3, the model is refused: appliance: weights differ" in said


def test_verify_compares_with_the_record(ask: Ask, tmp_path: Path) -> None:
    cluster = settled(pod("llama-new-1"))
    cluster.versions = {"llama-new-1": version()}
    assert ask(cluster, "verify")[0] == Verdict.UNKNOWN
    record = PinRecord(reference=NEW, identity=dict(HASHES))
    write_record(tmp_path, parse_reference(NEW), record)
    code, said = ask(cluster, "verify")
    assert code == 0
    assert "reports acme/llama-runtime:2: weights aaaaaaaaaaaa, tokenizer bbbbbbbbbbbb" in said
    cluster.versions = {"llama-new-1": version(server="0" * 64)}
    code, said = ask(cluster, "verify")
    assert code == Verdict.TAMPERED
    assert "reports server 000000000000, recorded dddddddddddd" in said


def test_status_as_json(ask: Ask) -> None:
    code, said = ask(half_way(), "status", "--json")
    facts = json.loads(said)
    assert code == Verdict.UNFINISHED
    assert facts["verdict"] == "unfinished"
    assert facts["pods"][0]["reason"].startswith("the node is fetching the environment")


def test_control_characters_of_a_message_do_not_reach_the_terminal(ask: Ask) -> None:
    ended = {"terminated": {"exitCode": 1, "message": "\x1b[2Jgone"}}
    assert "\x1b" not in ask(half_way(state=ended), "status")[1]


class Advancing(RecordedCluster):
    """Half way, half way, then finished."""

    def objects(self, namespace: str) -> list[dict[str, Any]]:
        self.asked.append((namespace, "", 0))
        return half_way().items if len(self.asked) < 3 else settled().items


@pytest.fixture
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("appliance_release.cli.rollout.INTERVAL_S", 0)


class Faltering(RecordedCluster):
    """Does not answer for a while, then is finished."""

    num_failures = 2

    def objects(self, namespace: str) -> list[dict[str, Any]]:
        self.num_failures -= 1
        if self.num_failures >= 0:
            raise ReleaseError("kubectl failed")
        return settled().items


@pytest.mark.usefixtures("no_pause")
def test_a_cluster_that_falters_is_asked_again() -> None:
    watch(Faltering([]), TARGET, 60, Terminal(None))
    gone = Faltering([])
    gone.num_failures = 3
    with pytest.raises(ReleaseError, match="kubectl failed"):
        watch(gone, TARGET, 60, Terminal(None))


@pytest.mark.usefixtures("no_pause")
def test_watching_draws_a_bar_until_it_is_finished() -> None:
    screen = Screen()
    watch(Advancing([]), TARGET, 60, Terminal(screen))
    drawn = screen.getvalue().split("\r")
    assert drawn[1].startswith("  [------------------------] 0 s, 0 of 2 new pods available")
    assert drawn[3].startswith("  [########################] 0 s, 2 of 2 new pods available")
    assert max(len(each.removesuffix("\x1b[K")) for each in drawn) < 80
    assert drawn[-1] == "\x1b[K"


@pytest.mark.usefixtures("no_pause")
def test_in_a_log_watching_writes_a_line_a_change() -> None:
    log = io.StringIO()
    watch(Advancing([]), TARGET, 60, Terminal(log))
    assert len(log.getvalue().splitlines()) == 2


@pytest.mark.usefixtures("no_pause")
def test_watching_ends_when_time_is_up() -> None:
    watch(half_way(), TARGET, 0, Terminal(None))


def test_the_bar_fills_with_available_pods() -> None:
    rollout = read_rollout(settled(), TARGET)
    assert bar(rollout) == f"[{'#' * 24}]"
    assert progress(rollout) == "2 of 2 new pods available"


def test_of_several_deployments_the_worst_verdict_is_the_exit_code(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    canary = deployment(None)
    canary["metadata"]["name"] = "llama-canary"
    targets = [replace(TARGET, pinned=OLD), replace(TARGET, deployment="llama-canary")]
    cluster = RecordedCluster([deployment(), canary])
    monkeypatch.setattr("appliance_release.rollout.target.find_targets", lambda *_: targets)
    monkeypatch.setattr("appliance_release.rollout.kubectl.Kubectl", lambda **_: cluster)
    assert main(["rollout", "status", "production"]) == Verdict.UNPINNED


def test_an_unknown_overlay_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rollout", "status", "prod"]) == 4
    assert "There is no overlay 'prod'" in capsys.readouterr().err
