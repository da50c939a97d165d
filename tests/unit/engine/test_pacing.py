"""Prompts are read as fast as the answers beside them bear."""

from __future__ import annotations

import pytest

from appliance.engine.pacing import (
    ANSWERS_ALONE_EVERY,
    FIRST_PROMPT_TOKENS,
    MAX_STRETCH,
    MIN_PROMPT_TOKENS,
    SMOOTH_PASS_S,
    Pace,
)

TOKEN_S = 0.001


def paced(*passes: tuple[int, int, float]) -> Pace:
    """Answers, prompt tokens and seconds of each pass so far."""
    pace = Pace()
    for num_answers, num_prompt_tokens, duration_s in passes:
        pace.learn(num_answers, num_prompt_tokens, duration_s)
    return pace


def test_before_any_pass_was_timed_a_fixed_number_is_read() -> None:
    assert paced().num_prompt_tokens(8, 1000) == FIRST_PROMPT_TOKENS
    assert paced((8, 0, 0.02)).num_prompt_tokens(8, 1000) == FIRST_PROMPT_TOKENS


@pytest.mark.parametrize("num_answers", [1, 8, 32])
def test_a_pass_with_answers_takes_no_longer_than_they_bear(num_answers: int) -> None:
    pace = paced((0, 100, 100 * TOKEN_S))
    num_prompt_tokens = pace.num_prompt_tokens(num_answers, 100)
    assert (num_answers + num_prompt_tokens) * TOKEN_S == pytest.approx(SMOOTH_PASS_S)


def test_much_that_waits_makes_a_pass_twice_as_long_at_most() -> None:
    pace = paced((0, 100, 100 * TOKEN_S))
    sizes = [8 + pace.num_prompt_tokens(8, num_waiting) for num_waiting in (0, 800, 1200, 10_000)]
    smooth = round(SMOOTH_PASS_S / TOKEN_S)
    assert sizes == [smooth, smooth, 108, round(MAX_STRETCH * smooth)]


def test_where_answers_are_slow_prompts_may_take_as_long_as_they() -> None:
    pace = paced((0, 100, 1.0), *[(8, 0, 0.2)] * 20)
    assert 8 + pace.num_prompt_tokens(8, 0) == pytest.approx(0.4 / 0.01, abs=1)


def read_on(pace: Pace, num_answers: int, answers_s: float, num_passes: int) -> list[int]:
    """Tokens that each pass read of a prompt that does not end."""
    read: list[int] = []
    for _ in range(num_passes):
        read.append(min(pace.num_prompt_tokens(num_answers, 4000), 480))
        pace.learn(num_answers, read[-1], answers_s + read[-1] * TOKEN_S)
    return read


def test_answers_that_grow_slow_are_noticed_though_there_are_always_prompts_to_read() -> None:
    read = read_on(paced((0, 512, 0.5), (1, 0, 0.02)), 32, 0.3, 200)
    assert read.count(0) == 200 // (ANSWERS_ALONE_EVERY + 1)
    assert sorted(read[-ANSWERS_ALONE_EVERY:])[1] * TOKEN_S >= 0.29


def test_one_pass_that_was_held_up_does_not_make_the_next_ones_long() -> None:
    read = read_on(paced((0, 512, 0.5), *[(8, 0, 0.04)] * 9, (8, 0, 60.0)), 8, 0.04, 200)
    longest_s = MAX_STRETCH * SMOOTH_PASS_S
    assert 0.04 + max(read) * TOKEN_S < 2.5 * longest_s
    assert 0.04 + max(read[-ANSWERS_ALONE_EVERY:]) * TOKEN_S < 1.05 * longest_s


def test_a_fast_machine_reads_more_than_a_batch_holds() -> None:
    assert paced((0, 512, 0.005)).num_prompt_tokens(32, 64) > 4096


def test_reading_goes_on_however_slow_it_is() -> None:
    assert paced((0, 64, 100.0)).num_prompt_tokens(32, 64) == MIN_PROMPT_TOKENS


def test_what_a_pass_takes_is_learnt_anew_when_it_changes() -> None:
    pace = paced((0, 64, 64.0), *[(0, 64, 64 * TOKEN_S)] * 20)
    assert pace.num_prompt_tokens(0, 0) == pytest.approx(SMOOTH_PASS_S / TOKEN_S, abs=2)


def test_passes_of_few_tokens_tell_nothing_of_many() -> None:
    pace = paced((0, 64, 64 * TOKEN_S), (1, MIN_PROMPT_TOKENS - 1, 5.0))
    assert pace.num_prompt_tokens(0, 0) == pytest.approx(SMOOTH_PASS_S / TOKEN_S, abs=1)
