"""Measures what quantizing costs a model: perplexity of a text, and how predictions move."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from appliance.engine.sequence import Batch, Chunk, LogitRows, SamplingParams, Sequence

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Sequence as ListOf

    from numpy.typing import NDArray

    from appliance.engine.runner import Runner
    from appliance.engine.sequence import FloatArray

WINDOW_TOKENS = 512  # the context a token is predicted from at most
ROWS_AT_ONCE = 64  # [64, V] in double precision is 65 MB for the largest vocabularies


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """Compares a quantized model with its original, over the tokens of one text."""

    num_tokens: int  # predicted
    original_perplexity: float
    quantized_perplexity: float
    mean_kl: float  # nats a token, original from quantized
    p99_kl: float
    max_kl: float
    same_choice_share: float  # of tokens where both find the same token likeliest


def compare(
    original: Runner,
    quantized: Runner,
    token_ids: ListOf[int],
    *,
    bos_token_id: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Quality:
    """Predict each token of the text from those before it in its window, with both runners."""
    prefix = [] if bos_token_id is None else [bos_token_id]
    num_given = max(len(prefix), 1)  # tokens of a window that nothing predicts
    if len(token_ids) <= num_given - len(prefix):
        raise ValueError("the text has too few tokens to predict any")
    info = original.info
    window = min(WINDOW_TOKENS, info.max_context_tokens, info.num_blocks * info.block_size)
    fresh = window - num_given
    parts: list[NDArray[np.float64]] = []
    for first in range(0, len(token_ids) - num_given + len(prefix), fresh):
        part = [*prefix, *token_ids[first : first + window - len(prefix)]]
        ours, theirs = (
            _logits(runner, part)[num_given - 1 : -1] for runner in (original, quantized)
        )
        parts.append(_compare_rows(ours, theirs, part[num_given:]))
        progress(min(first + window, len(token_ids)), len(token_ids))
    loss, quantized_loss, kl, same = np.concatenate(parts, axis=1)
    return Quality(
        num_tokens=len(kl),
        original_perplexity=perplexity(loss),
        quantized_perplexity=perplexity(quantized_loss),
        mean_kl=float(kl.mean()),
        p99_kl=float(np.quantile(kl, 0.99)),
        max_kl=float(kl.max()),
        same_choice_share=float(same.mean()),
    )


def perplexity(losses: NDArray[np.float64]) -> float:
    """Return e to the mean loss; infinite or NaN if the predictions are."""
    with np.errstate(over="ignore"):
        return float(np.exp(losses.mean()))


def _logits(runner: Runner, token_ids: list[int]) -> FloatArray:
    """Compute logits [T, V] of what follows each token."""
    sequence = Sequence(
        sequence_id=0,
        prompt_ids=tuple(token_ids),
        params=SamplingParams(max_new_tokens=0, seed=0),
        block_table=list(range(-(-len(token_ids) // runner.info.block_size))),
    )
    chunk = Chunk(sequence, 0, len(token_ids), LogitRows.ALL)
    [output] = runner.forward(Batch((chunk,)))
    runner.release(0)
    assert output.logits is not None  # noqa: S101 - they were asked for
    return output.logits


def _compare_rows(
    original: FloatArray, quantized: FloatArray, next_ids: list[int]
) -> NDArray[np.float64]:
    """Return [4, T]: both losses, the divergence, and 1 where both choose the same."""
    parts = []
    for first in range(0, len(next_ids), ROWS_AT_ONCE):
        rows = slice(first, first + ROWS_AT_ONCE)
        ours, theirs = _log_softmax(original[rows]), _log_softmax(quantized[rows])
        wanted = np.array(next_ids[rows])[:, None]
        kl = (np.exp(ours) * (ours - theirs)).sum(axis=1)
        same = ours.argmax(axis=1) == theirs.argmax(axis=1)
        both = (-np.take_along_axis(each, wanted, axis=1)[:, 0] for each in (ours, theirs))
        parts.append(np.stack([*both, kl, same]))
    return np.concatenate(parts, axis=1)


def _log_softmax(logits: FloatArray) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(axis=1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return shifted
