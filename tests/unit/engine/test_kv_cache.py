"""Blocks go out and come back, each to one sequence at a time."""

from __future__ import annotations

import pytest

from appliance.engine.kv_cache import BlockAllocator
from appliance.engine.sequence import SamplingParams, Sequence


def make_sequence(num_prompt: int, max_new_tokens: int = 0, *, is_pooled: bool = False) -> Sequence:
    return Sequence(
        sequence_id=1,
        prompt_ids=tuple(range(num_prompt)),
        params=SamplingParams(max_new_tokens=max_new_tokens, seed=0),
        is_pooled=is_pooled,
    )


def test_a_sequence_gets_the_blocks_of_its_prompt_and_all_its_new_tokens() -> None:
    allocator = BlockAllocator(num_blocks=8, block_size=4)
    sequence = make_sequence(5, 4)
    allocator.allocate(sequence)
    assert len(sequence.block_table) == 3
    assert (allocator.num_used_blocks, allocator.num_free_blocks) == (3, 5)


def test_a_pooled_sequence_gets_the_blocks_of_its_prompt_only() -> None:
    allocator = BlockAllocator(num_blocks=8, block_size=4)
    sequence = make_sequence(4, 100, is_pooled=True)
    allocator.allocate(sequence)
    assert len(sequence.block_table) == 1


def test_freeing_gives_every_block_back() -> None:
    allocator = BlockAllocator(num_blocks=8, block_size=4)
    sequence = make_sequence(9)
    allocator.allocate(sequence)
    allocator.free(sequence)
    assert sequence.block_table == []
    assert allocator.num_free_blocks == 8
    allocator.check([])


def test_freeing_twice_gives_nothing_back_twice() -> None:
    allocator = BlockAllocator(num_blocks=8, block_size=4)
    sequence = make_sequence(9)
    allocator.allocate(sequence)
    allocator.free(sequence)
    allocator.free(sequence)
    allocator.check([])


def test_a_sequence_larger_than_what_is_free_cannot_be_allocated() -> None:
    allocator = BlockAllocator(num_blocks=2, block_size=4)
    assert allocator.can_allocate(make_sequence(8))
    assert not allocator.can_allocate(make_sequence(9))
    with pytest.raises(ValueError, match="3 blocks are needed and 2 are free"):
        allocator.allocate(make_sequence(9))


def test_a_sequence_that_holds_blocks_is_not_given_more() -> None:
    allocator = BlockAllocator(num_blocks=8, block_size=4)
    sequence = make_sequence(4)
    allocator.allocate(sequence)
    with pytest.raises(ValueError, match="already holds 1 blocks"):
        allocator.allocate(sequence)


def test_the_check_finds_a_lost_and_a_shared_block() -> None:
    allocator = BlockAllocator(num_blocks=4, block_size=4)
    sequence = make_sequence(8)
    allocator.allocate(sequence)
    allocator.check([sequence])
    with pytest.raises(AssertionError, match="lost or shared"):
        allocator.check([])
    with pytest.raises(AssertionError, match="lost or shared"):
        allocator.check([sequence, sequence])


def test_an_allocator_without_blocks_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        BlockAllocator(num_blocks=0, block_size=16)
