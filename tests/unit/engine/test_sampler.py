"""Tokens follow the exact probabilities, chance repeats by seed and position, logprobs are raw."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from appliance.engine.sampler import (
    LogitsError,
    adjust,
    candidates,
    choose,
    draw,
    gather,
    gather_prompt_logprobs,
    mix,
    nucleus,
    sample,
    token_logprobs,
    uniform,
)
from appliance.engine.sequence import (
    Chunk,
    ChunkOutput,
    FloatArray,
    LogitRows,
    SamplingParams,
    Sequence,
)
from tests.fakes import FakeConstraint

PLACES = [(seed, length) for seed in range(20) for length in range(1, 11)]
GREEDY = SamplingParams(max_new_tokens=8, seed=0, temperature=0.0)


def make_sequence(params: SamplingParams, prompt_ids: tuple[int, ...] = (1, 2)) -> Sequence:
    return Sequence(sequence_id=1, prompt_ids=prompt_ids, params=params)


def params_with(
    *,
    seed: int = 0,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float = 1.0,
    min_p: float = 0.0,
) -> SamplingParams:
    return SamplingParams(
        max_new_tokens=8, seed=seed, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p
    )


def logits_of(*values: float) -> FloatArray:
    return np.array(values, dtype=np.float32)


def kept_ids(logits: FloatArray, params: SamplingParams) -> list[int]:
    token_ids, weights = candidates(logits, float(logits.max()), params)
    return list(range(len(weights))) if token_ids is None else token_ids.tolist()


def test_greedy_takes_the_best_token_and_the_lowest_id_of_equals() -> None:
    assert sample(logits_of(0, 3, 1, 3), make_sequence(GREEDY)) == 1


def test_the_logits_are_left_as_they_are() -> None:
    logits = logits_of(0, 3, 1, 3)
    params = SamplingParams(max_new_tokens=8, seed=0, logit_bias={1: -5.0}, presence_penalty=1.0)
    sample(logits, make_sequence(params))
    assert logits.tolist() == [0, 3, 1, 3]


def test_chance_repeats_by_seed_and_position() -> None:
    assert uniform(5, 9) == uniform(5, 9)
    assert len({uniform(seed, position) for seed in range(50) for position in range(50)}) == 2500


@pytest.mark.parametrize("seed", [0, -1, 2**63 - 1, -(2**63), 2**64 - 1])
def test_any_64_bit_seed_gives_numbers_from_zero_to_below_one(seed: int) -> None:
    numbers = [uniform(seed, position) for position in range(1000)]
    assert min(numbers) >= 0
    assert max(numbers) < 1
    assert abs(np.mean(numbers) - 0.5) < 0.03


def test_the_generator_never_changes() -> None:
    assert mix(0) == 0xE220A8397B1DCDAF  # the first number of the published splitmix64, from 0
    assert [uniform(42, position) for position in (0, 1, 1000)] == [
        0.9557467261317436,
        0.48634953628166855,
        0.8461873100634668,
    ]


def test_neighbouring_seeds_and_positions_are_independent() -> None:
    table = np.array([[uniform(seed, position) for position in range(200)] for seed in range(200)])
    for first, second in ((table[1:], table[:-1]), (table[:, 1:], table[:, :-1])):
        assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.02


@pytest.mark.parametrize(
    "params",
    [
        params_with(),
        params_with(temperature=0.5),
        params_with(top_k=5),
        params_with(top_p=0.8),
        params_with(min_p=0.1),
        params_with(temperature=1.5, top_k=12, top_p=0.9, min_p=0.05),
    ],
)
def test_tokens_come_as_often_as_their_probabilities_say(params: SamplingParams) -> None:
    logits = np.random.default_rng(3).normal(0, 1.5, 20).astype(np.float32)
    kept = kept_ids(logits, params)
    exact = np.zeros(20)
    exact[kept] = np.exp(logits[kept].astype(np.float64) / params.temperature)
    exact /= exact.sum()
    num_draws = 4000
    counts = np.zeros(20)
    for seed in range(num_draws):
        counts[sample(logits, make_sequence(replace(params, seed=seed)))] += 1
    expected = exact[kept] * num_draws
    chi_square = float((((counts[kept] - expected) ** 2) / expected).sum())
    degrees = len(kept) - 1
    assert counts.sum() == counts[kept].sum()
    assert chi_square < degrees + 4 * math.sqrt(2 * degrees)


def test_a_token_depends_on_seed_and_position_alone() -> None:
    logits = np.random.default_rng(0).normal(0, 1, 500).astype(np.float32)
    tokens = [sample(logits, make_sequence(params_with(seed=s), (1,) * n)) for s, n in PLACES]
    again = [sample(logits, make_sequence(params_with(seed=s), (2,) * n)) for s, n in PLACES[::-1]]
    assert tokens == again[::-1]
    assert len(set(tokens)) > 50


@pytest.mark.parametrize("num_weights", [1, 2, 255, 256, 257, 1000])
def test_every_weight_is_drawn_in_its_share_of_the_line(num_weights: int) -> None:
    weights = np.random.default_rng(1).integers(1, 4, num_weights).astype(np.float64)
    total = int(weights.sum())
    drawn = [draw(weights, (unit + 0.5) / total) for unit in range(total)]
    assert np.bincount(drawn, minlength=num_weights).tolist() == weights.tolist()


def test_a_weight_of_zero_is_never_drawn() -> None:
    weights = np.array([0.0, 1.0, 0.0, 0.0, 1.0, 0.0])
    fractions = [0.0, 0.25, 0.5, 0.75, 1 - 2.0**-53]
    assert {draw(weights, fraction) for fraction in fractions} == {1, 4}


def test_a_tiny_temperature_is_greedy_without_overflow() -> None:
    logits = logits_of(-3e30, 5, 6, 3e30)
    assert sample(logits, make_sequence(params_with(temperature=1e-30))) == 3


def test_top_k_keeps_the_best_and_ties_with_the_last_of_them() -> None:
    assert kept_ids(logits_of(1, 3, 2, 2, 0), params_with(top_k=2)) == [1, 2, 3]
    assert kept_ids(logits_of(1, 3, 2), params_with(top_k=99)) == [0, 1, 2]


def test_top_p_keeps_the_token_that_reaches_the_mass() -> None:
    logits = np.log(logits_of(0.5, 0.25, 0.125, 0.125))
    assert kept_ids(logits, params_with(top_p=0.5)) == [0]
    assert kept_ids(logits, params_with(top_p=0.6)) == [0, 1]
    assert kept_ids(logits, params_with(top_p=0.8)) == [0, 1, 2]
    assert kept_ids(logits, params_with(top_p=0.9)) == [0, 1, 2, 3]


def test_top_p_of_nothing_keeps_the_best_token() -> None:
    assert kept_ids(logits_of(1, 3, 3), params_with(top_p=0.0)) == [1]


def test_top_p_keeps_low_ids_of_equals() -> None:
    assert kept_ids(logits_of(1, 1, 1, 1), params_with(top_p=0.5)) == [0, 1]


def test_the_nucleus_is_that_of_a_full_sort() -> None:
    generator = np.random.default_rng(5)
    for scale, size in ((0, 700), (0.1, 700), (3, 700), (30, 700), (300, 700), (1, 9000)):
        weights = np.exp(-scale * generator.random(size))
        weights /= weights.max()
        for top_p in (0.01, 0.5, 0.9, 0.999):
            order = np.argsort(-weights, kind="stable")
            before = weights[order].cumsum() - weights[order]
            kept = np.sort(order[before < top_p * weights.sum() * (1 - 1e-12)])
            assert nucleus(weights, top_p).tolist() == kept.tolist()


def test_min_p_is_relative_to_the_best_token() -> None:
    logits = np.log(logits_of(0.6, 0.3, 0.07, 0.03))
    assert kept_ids(logits, params_with(min_p=0.4)) == [0, 1]
    assert kept_ids(logits, params_with(min_p=1.0)) == [0]


def test_repetition_is_penalised_over_prompt_and_new_tokens() -> None:
    params = SamplingParams(max_new_tokens=8, seed=0, repetition_penalty=2.0)
    sequence = make_sequence(params, (0, 1, 1))
    sequence.token_ids.append(2)
    assert adjust(logits_of(4, -4, 2, 2), sequence).tolist() == [2, -8, 1, 2]


def test_presence_and_frequency_count_new_tokens_only() -> None:
    params = SamplingParams(max_new_tokens=8, seed=0, presence_penalty=1.0, frequency_penalty=0.5)
    sequence = make_sequence(params, (0, 1))
    sequence.token_ids += [1, 2, 2]
    assert adjust(logits_of(4, 4, 4, 4), sequence).tolist() == [4, 2.5, 2, 4]


def test_a_bias_is_added() -> None:
    params = SamplingParams(max_new_tokens=8, seed=0, temperature=0.0, logit_bias={2: 10.0})
    assert sample(logits_of(1, 5, 0), make_sequence(params)) == 2


def test_a_constraint_outdoes_a_bias() -> None:
    params = SamplingParams(max_new_tokens=8, seed=0, logit_bias={2: 100.0})
    sequence = make_sequence(params)
    sequence.constraint = FakeConstraint([1])
    assert sample(logits_of(1, 0, 5), sequence) == 1


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("params", [GREEDY, params_with(), params_with(top_k=2)])
def test_logits_that_are_not_finite_are_an_error(bad: float, params: SamplingParams) -> None:
    with pytest.raises(LogitsError):
        sample(logits_of(1, bad, 2), make_sequence(params))


@pytest.mark.parametrize("penalty", [1e-39, 1e-300])
@pytest.mark.parametrize("logits", [logits_of(1, 2, 3), logits_of(1, 0, 3)])
def test_a_penalty_that_makes_logits_overflow_is_an_error(
    penalty: float, logits: FloatArray
) -> None:
    params = SamplingParams(max_new_tokens=8, seed=0, repetition_penalty=penalty)
    with pytest.raises(LogitsError):
        sample(logits, make_sequence(params))


def test_logits_that_forbid_every_token_are_an_error() -> None:
    with pytest.raises(LogitsError):
        sample(logits_of(-math.inf, -math.inf), make_sequence(GREEDY))


def test_a_forbidden_token_is_never_sampled() -> None:
    logits = logits_of(-math.inf, 0, -math.inf, 0)
    tokens = {sample(logits, make_sequence(params_with(seed=seed))) for seed in range(50)}
    assert tokens == {1, 3}


def test_logprobs_are_those_of_the_raw_logits() -> None:
    logits = np.log(logits_of(0.5, 0.3, 0.2))
    sequence = make_sequence(
        SamplingParams(max_new_tokens=8, seed=0, top_k=1, logit_bias={2: 50.0}, num_logprobs=1)
    )
    token_id, logprobs = choose(logits, sequence)
    assert token_id == 2
    assert logprobs is not None
    assert logprobs.logprob == pytest.approx(math.log(0.2))
    assert dict(logprobs.top) == pytest.approx({0: math.log(0.5)})


def test_equal_alternatives_are_listed_by_id_and_impossible_ones_not_at_all() -> None:
    logits = logits_of(1, 2, 2, -math.inf, 2)
    assert [token_id for token_id, _ in token_logprobs(logits, 0, 2).top] == [1, 2]
    assert [token_id for token_id, _ in token_logprobs(logits, 0, 9).top] == [1, 2, 4, 0]
    assert token_logprobs(logits, 0, 0).top == ()


def test_prompt_logprobs_are_gathered_across_chunks() -> None:
    rows = np.random.default_rng(0).normal(0, 1, (5, 8)).astype(np.float32)
    params = SamplingParams(max_new_tokens=1, seed=0, num_prompt_logprobs=2)
    whole = make_sequence(params, (3, 1, 4, 1, 5))
    gather_prompt_logprobs(rows, whole, 0)
    parts = make_sequence(params, (3, 1, 4, 1, 5))
    gather_prompt_logprobs(rows[:2], parts, 0)
    gather_prompt_logprobs(rows[2:], parts, 2)
    assert whole.prompt_logprobs == parts.prompt_logprobs
    assert whole.prompt_logprobs == [None] + [
        token_logprobs(row, token_id, 2) for row, token_id in zip(rows, (1, 4, 1, 5), strict=False)
    ]


def test_prompt_logprobs_that_are_computed_again_are_gathered_once() -> None:
    params = SamplingParams(max_new_tokens=8, seed=0, num_prompt_logprobs=0)
    sequence = make_sequence(params, (0, 1, 2, 3, 4))
    logits = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)
    gather_prompt_logprobs(logits, sequence, 0)
    expected, sequence.prompt_logprobs = sequence.prompt_logprobs, []
    gather_prompt_logprobs(logits[:2], sequence, 0)
    for start, end in ((0, 1), (1, 4), (4, 5)):  # preempted after two tokens, in other chunks now
        gather_prompt_logprobs(logits[start:end], sequence, start)
    assert sequence.prompt_logprobs == expected


def test_hidden_states_add_up_across_chunks() -> None:
    sequence = Sequence(sequence_id=1, prompt_ids=(1, 2), params=GREEDY, is_pooled=True)
    for position, hidden in enumerate(([1.0, 2.0], [3.0, 4.0])):
        chunk = Chunk(sequence, position, 1, LogitRows.NONE)
        gather(chunk, ChunkOutput(hidden_sum=np.array(hidden)))
    assert sequence.hidden_sum is not None
    assert sequence.hidden_sum.tolist() == [4.0, 6.0]


def test_a_grammar_hears_of_every_token_but_the_stop_token() -> None:
    params = SamplingParams(max_new_tokens=8, seed=0, stop_token_ids=frozenset({0}))
    sequence = make_sequence(params)
    sequence.constraint = constraint = FakeConstraint([1, 0])
    for expected in (1, 0):
        assert choose(np.zeros(4, dtype=np.float32), sequence)[0] == expected
    assert constraint.accepted == [1]
