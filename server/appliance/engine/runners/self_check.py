"""Checks that a runner gives a sequence the same bits alone, in pieces and among others."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import TYPE_CHECKING

from appliance.engine.sequence import Batch, Chunk, LogitRows, SamplingParams, Sequence

if TYPE_CHECKING:
    from collections.abc import Iterable

    from appliance.engine.runner import Runner, RunnerInfo

NUM_COMPARED = 4  # the last tokens of the sequence; what they look at holds all the others
MIN_BLOCKS = 4
MAX_OTHERS = 40


def find_difference(runner: Runner, num_tokens: int) -> str | None:
    """Return a sentence about the first difference, or None if every bit is the same.

    For a runner without requests: it writes to any block. Up to `num_tokens` are computed in
    each circumstance; they should reach over what the arithmetic treats as one.
    """
    info = runner.info
    if info.num_blocks < MIN_BLOCKS or info.max_context_tokens < 2 * NUM_COMPARED:
        return "bits may change with the batch: the cache is too small to try it out"
    num_own = info.num_blocks // 2
    num_tokens = min(num_tokens, info.max_context_tokens, num_own * info.block_size)
    start = num_tokens - NUM_COMPARED
    blocks = range(info.num_blocks)
    alone, moved = (_make(info, num_tokens, order) for order in (blocks, blocks[::-1]))
    others = [_make(info, 1 + index % info.block_size, [index]) for index in range(num_own)]
    others = others[:MAX_OTHERS]

    _run(runner, alone, [start])
    whole = _last_logits(runner, alone, [], NUM_COMPARED)
    singly = _last_logits(runner, alone, [], 1)
    _run(runner, moved, _uneven(start))
    amid_prompts = _last_logits(runner, moved, others, NUM_COMPARED)
    amid_decodes = _last_logits(runner, moved, [_make(info, 1, [0])] * 3, 1)
    circumstances = {
        "one by one": singly,
        "in pieces among prompts": amid_prompts,
        "in pieces among answers": amid_decodes,
    }
    differing = [name for name, logits in circumstances.items() if logits != whole]
    if not differing:
        return None
    return f"bits change with the batch on this device: {', '.join(differing)}"


def _make(info: RunnerInfo, num_tokens: int, blocks: Iterable[int]) -> Sequence:
    """Make a sequence with blocks in a given order; tokens depend on their number alone."""
    rng = random.Random(num_tokens)
    return Sequence(
        sequence_id=0,
        prompt_ids=tuple(rng.randrange(info.vocab_size) for _ in range(num_tokens)),
        params=SamplingParams(max_new_tokens=0, seed=0),
        block_table=list(blocks)[: -(-num_tokens // info.block_size)],
    )


def _uneven(num_tokens: int) -> list[int]:
    """Yield lengths that fit no tile: 1, 3, 5 and so on."""
    ends = [*(i * i for i in range(num_tokens) if i * i < num_tokens), num_tokens]
    return [end - start for start, end in pairwise(ends)]


def _run(runner: Runner, sequence: Sequence, lengths: Iterable[int]) -> None:
    start = 0
    for length in lengths:
        runner.forward(Batch((Chunk(sequence, start, length, LogitRows.NONE),)))
        start += length


def _last_logits(runner: Runner, sequence: Sequence, others: list[Sequence], length: int) -> bytes:
    """Compute the compared tokens' logits, so many at a time, after others in the batch."""
    end = len(sequence.token_ids)
    beside = [Chunk(other, 0, len(other.token_ids), LogitRows.LAST) for other in others]
    found = b""
    for start in range(end - NUM_COMPARED, end, length):
        chunk = Chunk(sequence, start, length, LogitRows.ALL)
        logits = runner.forward(Batch((*beside, chunk)))[-1].logits
        assert logits is not None  # noqa: S101 - all rows were asked for
        found += logits.tobytes()
    return found
