"""The workers' stopwatch, with an engine whose clock is known."""

from __future__ import annotations

import time

import pytest

from bench.workers.timing import Task, time_batch, time_single


def make_task(**changes: object) -> Task:
    values: dict[str, object] = {
        "model": "",
        "precision": "int8",
        "num_threads": 1,
        "kind": "single",
        "new_tokens": 11,
        "prompt_tokens": 100,
        "first_token_id": 10,
        "last_token_id": 20,
        "settings": {},
    }
    return Task(**{**values, **changes})  # type: ignore[arg-type]


def steady(prompts: list[list[int]], new_tokens: int) -> list[list[float]]:
    """A prompt token takes a second, each new token two."""
    began_s = time.perf_counter()
    return [[began_s + len(prompt) + 2 * i for i in range(new_tokens)] for prompt in prompts]


def test_the_speed_of_one_sequence_is_that_of_its_prompt_and_of_its_tokens() -> None:
    figures = time_single(make_task(), steady)
    assert figures["prefill"] == pytest.approx(1.0, rel=1e-3)
    assert figures["decode"] == pytest.approx(0.5)


def test_a_batch_ends_with_its_last_token() -> None:
    figures = time_batch(make_task(concurrency=4), steady)
    assert figures["throughput"] == pytest.approx(4 * 11 / (100 + 20), rel=1e-3)
    assert figures["ttft_p99"] == pytest.approx(100, rel=1e-3)
    assert figures["itl_p50"] == pytest.approx(2.0)


def test_no_two_prompts_are_alike_so_that_no_cache_helps() -> None:
    seen: list[tuple[int, ...]] = []

    def remember(prompts: list[list[int]], new_tokens: int) -> list[list[float]]:
        seen.extend(map(tuple, prompts))
        return steady(prompts, new_tokens)

    time_batch(make_task(concurrency=4), remember)
    time_single(make_task(), remember)
    assert len(set(seen)) == len(seen) == 4 + 4 + 2


def test_an_engine_that_stops_early_is_not_timed() -> None:
    with pytest.raises(SystemExit, match="5 tokens came where 11 were asked for"):
        time_single(make_task(), lambda prompts, new_tokens: steady(prompts, min(new_tokens, 5)))
