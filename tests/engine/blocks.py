"""What tests ask of a block allocator and the engine does not."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from appliance.engine.kv_cache import BlockAllocator
    from appliance.engine.sequence import Sequence


def check_blocks(allocator: BlockAllocator, sequences: Iterable[Sequence]) -> None:
    """Assert that every block is free, or held just as often as it is counted."""
    held = Counter(block for sequence in sequences for block in sequence.block_table)
    free = [*allocator._blank_blocks, *allocator._resting_blocks]
    assert sorted([*held, *free]) == list(range(allocator.num_blocks)), "blocks are lost"
    counted = {block: n for block, n in enumerate(allocator._num_holders) if n}
    assert counted == dict(held), "blocks are miscounted"
    known = {block: digest for digest, block in allocator._block_of.items()}
    assert known == allocator._digest_of, "a known block lost its digest"
    assert known.keys() >= allocator._resting_blocks.keys(), "a resting block is unknown"
    assert not known.keys() & set(allocator._blank_blocks), "a blank block is known"
    assert all(block in known for block, n in held.items() if n > 1), "a shared block is unknown"


def num_known_tokens(allocator: BlockAllocator, sequence: Sequence) -> int:
    """Count the tokens that a sequence without blocks would find computed."""
    return sum(allocator.block_size for _ in allocator._known_blocks(sequence, 0))


def shuffle_blocks(allocator: BlockAllocator, num_moved: int) -> None:
    free = allocator._blank_blocks
    free[:] = [*free[num_moved:], *reversed(free[:num_moved])]
