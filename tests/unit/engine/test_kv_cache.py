"""Blocks go out and come back, each to one sequence at a time."""

from __future__ import annotations

import pytest

from appliance.engine.kv_cache import BlockAllocator
from appliance.engine.sequence import SamplingParams, Sequence


def make_sequence(num_prompt: int, max_new_tokens: int = 0) -> Sequence:
    return Sequence(
        sequence_id=1,
        prompt_ids=tuple(range(num_prompt)),
        params=SamplingParams(max_new_tokens=max_new_tokens, seed=0),
    )


def test_a_sequence_gets_the_blocks_of_the_tokens_it_has_and_no_more() -> None:
    allocator = BlockAllocator(num_blocks=8, block_size=4)
    sequence = make_sequence(5, 100)
    assert allocator.allocate(sequence)
    assert len(sequence.block_table) == 2
    assert (allocator.num_used_blocks, allocator.num_free_blocks) == (2, 6)


def test_a_sequence_grows_by_a_block_when_it_has_outgrown_its_own() -> None:
    allocator = BlockAllocator(num_blocks=8, block_size=4)
    sequence = make_sequence(3)
    lengths = []
    for _ in range(3):
        assert allocator.allocate(sequence)
        lengths.append(len(sequence.block_table))
        sequence.token_ids.append(9)
    assert lengths == [1, 1, 2]
    assert len(set(sequence.block_table)) == 2


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


def test_a_sequence_that_lacks_more_than_is_free_gets_nothing() -> None:
    allocator = BlockAllocator(num_blocks=2, block_size=4)
    sequence = make_sequence(9)
    assert not allocator.allocate(sequence)
    assert sequence.block_table == []
    assert allocator.allocate(make_sequence(8))


def test_spare_blocks_stay_free() -> None:
    allocator = BlockAllocator(num_blocks=3, block_size=4)
    assert not allocator.allocate(make_sequence(8), num_spare=2)
    assert allocator.num_free_blocks == 3
    assert allocator.allocate(make_sequence(8), num_spare=1)


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
