"""A run of the comparison with participants that compute nothing: order, resumption, failures."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from bench import compare
from bench.compare import Run
from bench.goals import GOALS
from bench.participant import Figures, Job, Participant
from bench.plan import Selection
from bench.process import ProcessFailed
from bench.samples import Key, Sample, SampleFile
from bench.summary import OURS


class Calls(list[str]):
    """Who was asked, in order."""

    def participant(
        self, name: str, answer: Callable[[], Figures], *, installs: bool = True
    ) -> Participant:
        def single(job: Job) -> Figures:
            self.append(name)
            return answer()

        def install() -> None:
            if not installs:
                raise ProcessFailed("no compiler")

        return Participant(
            name=name,
            precisions=("int8",),
            install=install,
            prepare=lambda checkpoint, precision: None,
            versions=dict,
            single=single,
        )


def figures() -> Figures:
    return {"decode": 2.0, "prefill": 3.0}


def fail() -> Figures:
    raise ProcessFailed("exit code 1")


@pytest.fixture(autouse=True)
def no_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "limits", lambda job: figures())


def make_run(tmp_path: Path, *participants: Participant) -> Run:
    return Run(
        selection=Selection(kinds=("single",), models=("embedded",), precisions=("int8",)),
        participants=participants,
        samples=SampleFile(tmp_path / "samples.jsonl"),
        num_threads=1,
    )


def test_participants_take_turns_and_another_one_begins_each_round(tmp_path: Path) -> None:
    calls = Calls()
    make_run(
        tmp_path, calls.participant(OURS, figures), calls.participant("peer", figures)
    ).measure()
    assert calls == [OURS, "peer", "peer", OURS, OURS, "peer"]


def test_a_run_goes_on_where_the_one_before_was_stopped(tmp_path: Path) -> None:
    def stop() -> Figures:
        raise KeyboardInterrupt

    calls = Calls()
    ours = calls.participant(OURS, figures)
    with pytest.raises(KeyboardInterrupt):
        make_run(tmp_path, ours, calls.participant("peer", stop)).measure()
    calls.clear()
    make_run(tmp_path, ours, calls.participant("peer", figures)).measure()
    assert calls == ["peer", "peer", OURS, OURS, "peer"]


def test_who_fails_is_not_asked_again_in_this_run_but_in_the_next(tmp_path: Path) -> None:
    calls = Calls()
    make_run(tmp_path, calls.participant(OURS, figures), calls.participant("peer", fail)).measure()
    assert calls.count("peer") == 1
    make_run(
        tmp_path, calls.participant(OURS, figures), calls.participant("peer", figures)
    ).measure()
    assert calls.count("peer") == 4


def test_a_peer_that_cannot_be_installed_leaves_the_others_alone_and_its_reason_behind(
    tmp_path: Path,
) -> None:
    calls = Calls()
    run = make_run(
        tmp_path,
        calls.participant("peer", figures, installs=False),
        calls.participant(OURS, figures),
    )
    run.measure()
    run.write(tmp_path / "results")
    assert calls == [OURS] * 3
    records = json.loads((tmp_path / "results" / "summary.json").read_text())
    [error] = {record["error"] for record in records if record["peer_name"] == "peer"}
    assert error == "ProcessFailed: could not be prepared: no compiler"


def test_results_are_records_conditions_samples_and_pictures(tmp_path: Path) -> None:
    calls = Calls()
    run = make_run(tmp_path, calls.participant(OURS, figures), calls.participant("peer", figures))
    run.measure()
    results = tmp_path / "results"
    run.write(results)
    for record in json.loads((results / "summary.json").read_text()):
        assert {"metric", "model", "precision", "concurrency", "ours", "peer"} <= record.keys()
        assert {"peer_name", "ratio", "better_is"} <= record.keys()
    conditions = json.loads((results / "conditions.json").read_text())
    assert len(conditions["digests"]["embedded"]) == 64
    assert (results / "samples.jsonl").read_text() == (tmp_path / "samples.jsonl").read_text()
    drawn = ET.fromstring((results / "decode_tokens_per_s.svg").read_text())  # noqa: S314 - our own
    shown = {element.text for element in drawn.iter() if element.text}
    assert {"embedded, int8", "appliance", "peer", "2 tok/s"} <= shown


def test_when_time_is_up_nothing_more_begins(tmp_path: Path) -> None:
    calls = Calls()
    run = make_run(tmp_path, calls.participant(OURS, figures))
    run.end_s = 0.0
    run.measure()
    assert calls == []


def test_samples_are_read_back_as_they_were_written(tmp_path: Path) -> None:
    key = Key(kind="batch", model="S", precision="int8", participant="a", round=1, concurrency=8)
    good = Sample(key=key, figures={"throughput": 1.5}, wall_s=2.0, neighbours=0.1)
    path = tmp_path / "deep" / "samples.jsonl"
    SampleFile(path).add(Sample(key=key, error="lost"))
    assert not SampleFile(path).has(key)
    SampleFile(path).add(good)
    assert list(SampleFile(path)) == [good]
    assert SampleFile(path).has(key)


def test_a_name_that_is_unknown_is_refused_with_those_that_are_known(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        compare.main(["--models", "XL"])
    assert "'XL' is none of L, S, embedded, M" in capsys.readouterr().err


def test_the_quick_plan_holds_every_promise_and_little_else() -> None:
    cells = list(Selection(is_quick=True).cells())
    kinds = {"decode": "single", "prefill": "single", "throughput": "serve", "start": "serve"}
    for goal in GOALS:
        kind = kinds.get(goal.metric.split("_")[0])
        if kind is not None:
            assert any(
                (cell.kind, cell.model) == (kind, goal.model)
                and goal.precision in (None, cell.precision)
                for cell in cells
            ), goal
    assert set(cells) < set(Selection().cells())
