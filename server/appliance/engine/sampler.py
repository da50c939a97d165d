"""Chooses tokens from logits and computes log-probabilities; chance is seed and position."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from appliance.engine.sequence import (
    Chunk,
    ChunkOutput,
    DoubleArray,
    FloatArray,
    LogitRows,
    SamplingParams,
    Sequence,
    TokenLogprobs,
)

IntArray = NDArray[np.intp]
# Logits [N], their peak and a temperature to e^((logit - peak) / temperature): numpy's, whose last
# bits depend on the CPU, or a runner's own.
Weigh = Callable[[FloatArray, float, float], DoubleArray]

MASK_64 = (1 << 64) - 1
GOLDEN_GAMMA = 0x9E3779B97F4A7C15
GRID_COLUMNS = 256
MAX_SORTED = 4096
HEAVY_WEIGHT = 1e-3  # of the likeliest token's
BIN_SHIFT = 50  # of a double's 64 bits, leaves the exponent and two bits: four bins an octave
BIN_OF_ONE = int(np.float64(1.0).view(np.int64)) >> BIN_SHIFT


class LogitsError(Exception):
    """Logits that no token can be chosen from: NaN, plus infinity, or every token forbidden."""


def relative_probabilities(
    logits: FloatArray, peak: float, temperature: float = 1.0
) -> DoubleArray:
    """Return exp((logits - peak) / temperature): at most 1 at any positive temperature."""
    scaled = logits.astype(np.float64)
    scaled -= peak
    if temperature != 1.0:
        with np.errstate(over="ignore"):  # a tiny temperature: minus infinity, weight 0
            scaled /= temperature
    weights: DoubleArray = np.exp(scaled, out=scaled)
    return weights


def sample(logits: FloatArray, sequence: Sequence, weigh: Weigh = relative_probabilities) -> int:
    """Choose the next token of a sequence from its logits [V], which stay unchanged.

    The order is that of transformers: penalties, bias, the constraint's mask, temperature, top-k,
    top-p, min-p. The choice depends on the logits, the sequence's own tokens, its parameters and
    its seed, never on the batch.
    """
    params = sequence.params
    if is_adjusted(sequence):
        logits = adjust(logits, sequence)
    best = int(logits.argmax())  # the first of equals; the first NaN if there is one
    peak = float(logits[best])
    if not math.isfinite(peak):
        raise LogitsError(f"the largest logit is {peak}")
    if params.temperature == 0.0 or params.top_k == 1:
        return best
    token_ids, weights = candidates(logits, peak, params, weigh)
    index = draw(weights, uniform(params.seed, len(sequence.token_ids)))
    return index if token_ids is None else int(token_ids[index])


def draw(weights: DoubleArray, fraction: float) -> int:
    """Return the index at which the running sum of weights passes `fraction` of their total.

    The sum runs down the columns of a grid, because numpy adds whole rows many times faster than it
    accumulates: any order will do that depends on nothing but the number of weights.
    """
    num_whole = len(weights) // GRID_COLUMNS * GRID_COLUMNS
    sums = np.add.reduce(weights[:num_whole].reshape(-1, GRID_COLUMNS), axis=0)
    sums[: len(weights) - num_whole] += weights[num_whole:]
    columns = sums.cumsum()
    target = fraction * float(columns[-1])
    column = first_above(columns, target)
    before = float(columns[column - 1]) if column else 0.0
    in_column = weights[column::GRID_COLUMNS].cumsum()
    return first_above(in_column, target - before) * GRID_COLUMNS + column


def first_above(cumulative: DoubleArray, target: float) -> int:
    """Return the first index whose sum exceeds the target; never one that adds nothing."""
    index = int(cumulative.searchsorted(target, side="right"))
    if index == len(cumulative):  # the target was rounded up to the total
        return int(cumulative.searchsorted(cumulative[-1], side="left"))
    return index


def uniform(seed: int, position: int) -> float:
    """Map (seed, position) to a number in [0, 1); seeds are integers modulo 2**64."""
    return (mix(mix(seed) + GOLDEN_GAMMA * (position + 1)) >> 11) * 2.0**-53


def mix(value: int) -> int:
    """Apply the step of splitmix64, a bijection of 64-bit integers that spreads every bit."""
    value = (value + GOLDEN_GAMMA) & MASK_64
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & MASK_64
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK_64
    return value ^ (value >> 31)


def is_adjusted(sequence: Sequence) -> bool:
    params = sequence.params
    return (
        sequence.constraint is not None
        or bool(params.logit_bias)
        or params.repetition_penalty != 1.0
        or params.presence_penalty != 0.0
        or params.frequency_penalty != 0.0
    )


@np.errstate(over="ignore", divide="ignore", invalid="ignore")
def adjust(logits: FloatArray, sequence: Sequence) -> FloatArray:
    """Return a copy of the logits with penalties, bias and the constraint's mask applied.

    Penalties that are too small or too large make infinities, which the caller refuses.
    """
    params = sequence.params
    logits = np.array(logits, dtype=np.float32)
    if params.repetition_penalty != 1.0:
        seen = np.array(sequence.token_ids, dtype=np.intp)
        scores = logits[seen]
        penalty = np.float32(params.repetition_penalty)
        logits[seen] = np.where(scores < 0, scores * penalty, scores / penalty)
    if sequence.num_new_tokens and (params.presence_penalty or params.frequency_penalty):
        new_ids = np.array(sequence.token_ids[sequence.num_prompt_tokens :], dtype=np.intp)
        seen, counts = np.unique(new_ids, return_counts=True)
        logits[seen] -= (params.presence_penalty + params.frequency_penalty * counts).astype(
            np.float32
        )
    for token_id, bias in params.logit_bias.items():
        logits[token_id] += np.float32(bias)
    if sequence.constraint is not None:
        sequence.constraint.apply(logits)
    return logits


def candidates(
    logits: FloatArray, peak: float, params: SamplingParams, weigh: Weigh = relative_probabilities
) -> tuple[IntArray | None, DoubleArray]:
    """Return the tokens that may be sampled, ascending, and probabilities relative to the best.

    No ids (None) stand for the whole vocabulary.
    """
    token_ids: IntArray | None = None
    if params.top_k is not None and params.top_k < len(logits):
        # Ties with the k-th best all stay, as in transformers.
        threshold = np.partition(logits, -params.top_k)[-params.top_k]
        token_ids = np.flatnonzero(logits >= threshold)
        logits = logits[token_ids]
    weights = weigh(logits, peak, params.temperature)
    if params.top_p < 1.0:
        token_ids, weights = select(token_ids, weights, nucleus(weights, params.top_p))
    if params.min_p > 0.0:
        token_ids, weights = select(token_ids, weights, np.flatnonzero(weights >= params.min_p))
    return token_ids, weights


def nucleus(weights: DoubleArray, top_p: float) -> IntArray:
    """Return the fewest best tokens whose mass reaches `top_p`, ascending; low ids win ties."""
    wanted = top_p * float(weights.sum())
    heavy = np.flatnonzero(weights >= HEAVY_WEIGHT)
    if (
        len(heavy) <= MAX_SORTED and float(weights[heavy].sum()) >= wanted
    ):  # as nearly always: few tokens, or one, decide
        best = heavy[np.argsort(-weights[heavy], kind="stable")]
        num_kept = 1 + int(weights[best].cumsum()[:-1].searchsorted(wanted, side="left"))
        return np.sort(best[:num_kept])
    # Sorting a vocabulary is slow. The bits of a positive double rise with its value: the leading
    # ones sort tokens into bins, and only the bin in which the mass is reached needs an order.
    bins = BIN_OF_ONE - (weights.view(np.int64) >> BIN_SHIFT)
    mass = np.bincount(bins, weights).cumsum()
    edge = min(int(mass.searchsorted(wanted, side="left")), len(mass) - 1)
    inside = np.flatnonzero(bins == edge)
    order = inside[np.argsort(-weights[inside], kind="stable")]
    mass_before = np.append(0.0, weights[order].cumsum()[:-1]) + (mass[edge - 1] if edge else 0.0)
    is_kept = bins < edge
    is_kept[order[: max(1, int(mass_before.searchsorted(wanted, side="left")))]] = True
    return np.flatnonzero(is_kept)


def select(
    token_ids: IntArray | None, weights: DoubleArray, kept: IntArray
) -> tuple[IntArray, DoubleArray]:
    return (kept if token_ids is None else token_ids[kept]), weights[kept]


def token_logprobs(
    logits: FloatArray, token_id: int, num_top: int, weigh: Weigh = relative_probabilities
) -> TokenLogprobs:
    """Compute log-probabilities of a token and of the `num_top` best, from raw logits [V].

    Raw: before penalties, bias, mask, temperature and filters, as the OpenAI API and vLLM report
    them. Equal alternatives are listed by ascending id, impossible ones not at all.
    """
    peak = float(logits.max())
    if not math.isfinite(peak):
        raise LogitsError(f"the largest logit is {peak}")
    log_total = peak + math.log(float(weigh(logits, peak, 1.0).sum()))
    top = [(best, float(logits[best]) - log_total) for best in best_tokens(logits, num_top)]
    return TokenLogprobs(token_id, float(logits[token_id]) - log_total, tuple(top))


def best_tokens(logits: FloatArray, num_best: int) -> list[int]:
    num_best = min(num_best, len(logits))
    if num_best == 0:
        return []
    threshold = np.partition(logits, -num_best)[-num_best]
    contenders = np.flatnonzero((logits >= threshold) & (logits > -np.inf))
    order = np.argsort(-logits[contenders], kind="stable")
    return [int(token_id) for token_id in contenders[order[:num_best]]]


def gather_prompt_logprobs(
    logits: FloatArray, sequence: Sequence, start: int, weigh: Weigh = relative_probabilities
) -> None:
    """Add prompt log-probabilities of a chunk's rows [R, V]: row i scores token start + i + 1."""
    num_top = sequence.params.num_prompt_logprobs or 0
    gathered = sequence.prompt_logprobs
    if not gathered:
        gathered.append(None)  # nothing comes before the first token
    while len(gathered) < sequence.num_prompt_tokens and len(gathered) - 1 - start < len(logits):
        position = len(gathered)
        gathered.append(
            token_logprobs(
                logits[position - 1 - start], sequence.token_ids[position], num_top, weigh
            )
        )


def gather(chunk: Chunk, output: ChunkOutput, weigh: Weigh = relative_probabilities) -> None:
    """Record a chunk's results for its prompt: log-probabilities, or its part of a mean."""
    sequence = chunk.sequence
    if output.hidden_sum is not None:
        hidden_sum = output.hidden_sum.astype(np.float64)
        gathered = sequence.hidden_sum
        sequence.hidden_sum = hidden_sum if gathered is None else gathered + hidden_sum
    is_scored = sequence.params.num_prompt_logprobs is not None and chunk.rows is LogitRows.ALL
    if output.logits is not None and is_scored:
        gather_prompt_logprobs(output.logits, sequence, chunk.start, weigh)


def choose(
    logits: FloatArray, sequence: Sequence, weigh: Weigh = relative_probabilities
) -> tuple[int, TokenLogprobs | None]:
    """Choose the next token of a sequence from its logits [V], and advance its grammar."""
    params = sequence.params
    token_id = sample(logits, sequence, weigh)
    logprobs = None
    if params.num_logprobs is not None:
        logprobs = token_logprobs(logits, token_id, params.num_logprobs, weigh)
    if sequence.constraint is not None and token_id not in params.stop_token_ids:
        sequence.constraint.accept(token_id)
    return token_id, logprobs
