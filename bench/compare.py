"""We and the peers side by side on the same checkpoints, in turns; goes on where it stopped."""

from __future__ import annotations

import argparse
import json
import math
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from appliance.machine import available_cores
from bench import plan, report
from bench.cache import cache_dir
from bench.checkpoints import Checkpoint, open_checkpoint
from bench.load import LoadFailed
from bench.measure import BITS, limits, make_job, take
from bench.participant import Figures, Job, Participant
from bench.participants import ALL, OURS
from bench.plan import Cell, Selection, in_turn
from bench.plot import draw_all
from bench.process import Neighbours, ProcessFailed, wait_for_quiet
from bench.samples import Key, Sample, SampleFile
from bench.summary import LIMITS_AFTER, LIMITS_BEFORE, summarise
from bench.table import goal_table, shown

FAILURES = (ProcessFailed, LoadFailed, OSError, ValueError, KeyError, TimeoutError, ExceptionGroup)


def main(arguments: Sequence[str]) -> int:
    options = _parser().parse_args(arguments)
    selection = Selection(
        kinds=options.only,
        models=options.models,
        precisions=options.precisions,
        is_quick=options.quick,
        rounds=options.rounds,
    )
    everyone = tuple(one.name for one in ALL)
    names = options.peers or (plan.QUICK_PEERS if options.quick else everyone)
    commit = report.commit()
    folder = cache_dir("runs", f"{commit}-quick" if options.quick else commit)
    if options.fresh:
        shutil.rmtree(folder)
    run = Run(
        selection=selection,
        participants=[one for one in ALL if one is OURS or one.name in names],
        samples=SampleFile(folder / "samples.jsonl"),
        num_threads=options.threads,
        quiet_s=options.quiet_s,
        end_s=time.monotonic() + 60 * options.minutes,
    )
    print(f"commit {commit}; samples in {run.samples.path}", flush=True)
    signal.signal(signal.SIGTERM, _stop)  # what is being measured ends with us
    try:
        if not options.report_only:
            run.measure()
    finally:
        run.write(options.results)
    return 0


def _stop(signum: int, frame: object) -> None:
    sys.exit(128 + signum)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench compare", description=__doc__)
    peers = ("none", *(one.name for one in ALL if one is not OURS))
    parser.add_argument("--quick", action="store_true", help="one round of what is promised")
    for flag, known, default in (
        ("--only", plan.KINDS, plan.KINDS),
        ("--models", plan.MODELS, plan.MODELS),
        ("--precisions", plan.PRECISIONS, plan.PRECISIONS),
        ("--peers", peers, None),
    ):
        text = f"of {', '.join(known)}; default: all, or what --quick needs"
        of_known = partial(_split, known)
        parser.add_argument(flag, default=default, help=text, type=of_known, metavar="A,B")
    parser.add_argument("--rounds", type=int, help="default: 3; 2 for servers at L; 1 if quick")
    parser.add_argument("--threads", type=int, default=available_cores(), help="for everyone")
    parser.add_argument(
        "--quiet-s",
        type=float,
        default=20.0,
        metavar="S",
        help="wait so long at most, before each measurement, for other programs to be quiet",
    )
    parser.add_argument(
        "--minutes", type=float, default=math.inf, help="begin no measurement after so many"
    )
    parser.add_argument("--fresh", action="store_true", help="forget this commit's samples first")
    parser.add_argument(
        "--report-only", action="store_true", help="measure nothing, write the results anew"
    )
    parser.add_argument(
        "--results", type=Path, default=report.RESULTS, metavar="DIR", help="where results go"
    )
    return parser


def _split(known: Sequence[str], text: str) -> tuple[str, ...]:
    found = tuple(part.strip() for part in text.split(",") if part.strip())
    if unknown := [name for name in found if name not in known]:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(known)}")
    return found


@dataclass(slots=True, kw_only=True)
class Run:
    """One run of the plan, or the rest of one."""

    selection: Selection
    participants: Sequence[Participant]
    samples: SampleFile
    num_threads: int
    quiet_s: float = 0.0
    end_s: float = math.inf  # by the clock of time.monotonic: begin nothing after it
    _checkpoints: dict[str, Checkpoint] = field(default_factory=dict)
    _prepared: dict[tuple[str, ...], str | None] = field(default_factory=dict)

    def measure(self) -> None:
        """All that is selected, or as much as there is time for."""
        cells = list(self.selection.cells())
        for number, cell in enumerate(cells, 1):
            concurrency = f" x{cell.concurrency}" if cell.concurrency else ""
            title = f"{cell.kind} {cell.model} {cell.precision}{concurrency}"
            print(f"[{number}/{len(cells)}] {title}", flush=True)
            self._measure_cell(cell)

    def _measure_cell(self, cell: Cell) -> None:
        """A failure is tried again by the next run, not in the next round of this one."""
        checkpoint = self._checkpoint(cell.model)
        failed: set[str] = set()
        for turn in range(self.selection.num_rounds(cell)):
            job = make_job(cell, checkpoint, self.num_threads, turn)
            able = [
                one for one in self.participants if one.can(job) and self.selection.wants(cell, one)
            ]
            tasks: dict[Key, Callable[[], Figures]] = {}
            for one in in_turn(able, turn):
                has_limits = cell.kind == "single" and one is OURS
                if has_limits:
                    tasks[_key(cell, "limit", LIMITS_BEFORE, turn)] = partial(limits, job)
                tasks[_key(cell, cell.kind, one.name, turn)] = partial(self._ask, one, job)
                if has_limits:
                    tasks[_key(cell, "limit", LIMITS_AFTER, turn)] = partial(limits, job)
            for key, task in tasks.items():
                if time.monotonic() > self.end_s:
                    return
                if key.participant not in failed and not self.samples.has(key):
                    wait_for_quiet(self.quiet_s)
                    sample = _take(key, task)
                    self.samples.add(sample)
                    failed |= {key.participant} if sample.error else set()

    def _ask(self, participant: Participant, job: Job) -> Figures:
        """Prepared first, once; what cannot be prepared fails the same way each time."""
        identity = (participant.name, job.checkpoint.name, job.precision)
        if identity not in self._prepared:
            try:
                participant.install()
                participant.prepare(job.checkpoint, job.precision)
                self._prepared[identity] = None
            except FAILURES as error:
                self._prepared[identity] = f"could not be prepared: {error}"
        if (reason := self._prepared[identity]) is not None:
            raise ProcessFailed(reason)
        return take(participant, job, tuple(self.selection.concurrencies(job.checkpoint.name)))

    def _checkpoint(self, name: str) -> Checkpoint:
        if name not in self._checkpoints:
            self._checkpoints[name] = open_checkpoint(name)
        return self._checkpoints[name]

    def write(self, results: Path) -> None:
        """Records, conditions, raw samples and pictures, of all this commit's samples so far."""
        models = {sample.key.model for sample in self.samples}
        if not models:
            print("nothing was measured")
            return
        checkpoints = [self._checkpoint(name) for name in plan.MODELS if name in models]
        measured = {sample.key.participant for sample in self.samples}
        records = summarise(self.samples, weight_sizes(checkpoints))
        conditions = {
            **report.conditions(),
            "threads": self.num_threads,
            "digests": {one.name: one.digest() for one in checkpoints},
            "peers": {one.name: one.versions() for one in ALL if one.name in measured},
        }
        results.mkdir(parents=True, exist_ok=True)
        _write_json(results / "summary.json", records)
        _write_json(results / "conditions.json", conditions)
        shutil.copyfile(self.samples.path, results / "samples.jsonl")
        pictures = draw_all(records, results)
        print(goal_table(records))
        print(f"\nwritten: {results}/summary.json and {len(pictures)} pictures")


def _take(key: Key, task: Callable[[], Figures]) -> Sample:
    name = f"round {key.round + 1}  {key.participant}"
    print(f"  {name:<34}", end="", flush=True)
    began_s, neighbours = time.perf_counter(), Neighbours()
    figures: Figures = {}
    error = None
    try:
        figures = task()
    except FAILURES as failure:
        error = _message(failure)
    wall_s, share = time.perf_counter() - began_s, neighbours.share()
    print(f"{wall_s:6.1f} s  {shown(figures) if error is None else f'FAILED: {error}'}", flush=True)
    return Sample(key=key, figures=figures, error=error, wall_s=round(wall_s, 2), neighbours=share)


def _message(failure: BaseException) -> str:
    while isinstance(failure, BaseExceptionGroup):
        failure = failure.exceptions[0]
    return f"{type(failure).__name__}: {failure}"


def _key(cell: Cell, kind: str, name: str, turn: int) -> Key:
    return Key(
        kind=kind,
        model=cell.model,
        precision=cell.precision,
        participant=name,
        round=turn,
        concurrency=cell.concurrency,
    )


def weight_sizes(checkpoints: Sequence[Checkpoint]) -> dict[tuple[str, str], int]:
    """Bytes of all weights in each precision; the embedding stays as it is stored."""
    return {
        (one.name, precision): int(one.num_bytes(bits))
        for one in checkpoints
        for precision, bits in BITS.items()
    }


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
