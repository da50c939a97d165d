"""Blocks go out and come back; only what is known by its content is shared."""

from __future__ import annotations

import pytest

from appliance.engine.kv_cache import BlockAllocator
from appliance.engine.sequence import SamplingParams, Sequence
from tests.engine.blocks import check_blocks, num_known_tokens


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
    check_blocks(allocator, [])


def test_freeing_twice_gives_nothing_back_twice() -> None:
    allocator = BlockAllocator(num_blocks=8, block_size=4)
    sequence = make_sequence(9)
    allocator.allocate(sequence)
    allocator.free(sequence)
    allocator.free(sequence)
    check_blocks(allocator, [])


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
    check_blocks(allocator, [sequence])
    with pytest.raises(AssertionError, match="lost"):
        check_blocks(allocator, [])
    with pytest.raises(AssertionError, match="miscounted"):
        check_blocks(allocator, [sequence, sequence])


def sharing_allocator(num_blocks: int = 8) -> BlockAllocator:
    return BlockAllocator(num_blocks=num_blocks, block_size=4, shares_prefixes=True)


def compute(allocator: BlockAllocator, sequence: Sequence) -> None:
    start, sequence.num_cached_tokens = sequence.num_cached_tokens, len(sequence.token_ids)
    allocator.publish(sequence, start, sequence.num_cached_tokens)


def test_full_blocks_are_shared_and_the_last_token_is_always_computed() -> None:
    allocator = sharing_allocator()
    first, second = make_sequence(8), make_sequence(8)
    allocator.allocate(first)
    compute(allocator, first)
    allocator.allocate(second)
    assert second.num_cached_tokens == 4
    assert second.block_table[0] == first.block_table[0]
    assert second.block_table[1] != first.block_table[1]
    assert allocator.num_used_blocks == 3
    check_blocks(allocator, [first, second])


def test_nothing_is_shared_under_another_salt_or_without_the_setting() -> None:
    plain = BlockAllocator(num_blocks=8, block_size=4)
    for allocator, salt in ((sharing_allocator(), b"other"), (plain, b"")):
        first, second = make_sequence(8), make_sequence(8)
        second.cache_salt = salt
        allocator.allocate(first)
        compute(allocator, first)
        allocator.allocate(second)
        assert second.num_cached_tokens == 0
        check_blocks(allocator, [first, second])


def test_a_block_after_another_beginning_is_not_the_same_block() -> None:
    allocator = sharing_allocator()
    first, second = make_sequence(9), make_sequence(9)
    second.token_ids[0] = 99
    allocator.allocate(first)
    compute(allocator, first)
    allocator.allocate(second)
    assert second.num_cached_tokens == 0


def test_what_was_let_go_longest_ago_is_forgotten_first_its_end_before_its_beginning() -> None:
    allocator = sharing_allocator(num_blocks=7)
    old, young = make_sequence(12), make_sequence(4)
    young.token_ids[0] = 99
    for sequence in (old, young):
        allocator.allocate(sequence)
        compute(allocator, sequence)
        allocator.free(sequence)
    assert allocator.num_free_blocks == 7
    other, again = make_sequence(16), make_sequence(5)
    other.token_ids[0], again.token_ids[0] = 77, 99
    allocator.allocate(other)  # three that are blank, and one that was known
    assert num_known_tokens(allocator, make_sequence(13)) == 8
    allocator.allocate(again)
    assert again.num_cached_tokens == 4
    assert num_known_tokens(allocator, make_sequence(13)) == 4
    check_blocks(allocator, [other, again])


def test_known_blocks_take_the_place_of_those_not_computed_yet() -> None:
    allocator = sharing_allocator()
    first, second = make_sequence(9), make_sequence(9)
    allocator.allocate(first)
    allocator.allocate(second)
    compute(allocator, first)
    assert allocator.num_used_blocks == 6
    allocator.adopt(second)
    assert second.num_cached_tokens == 8
    assert allocator.num_used_blocks == 4
    check_blocks(allocator, [first, second])


def test_what_is_retracted_or_forgotten_is_not_found() -> None:
    allocator = sharing_allocator()
    sequence = make_sequence(9)
    allocator.allocate(sequence)
    compute(allocator, sequence)
    allocator.retract(sequence, 4)
    assert num_known_tokens(allocator, sequence) == 4
    allocator.free(sequence)
    check_blocks(allocator, [])
    allocator.forget_all()
    assert num_known_tokens(allocator, sequence) == 0
    check_blocks(allocator, [])


def test_a_prompt_whose_every_token_is_read_shares_nothing() -> None:
    allocator = sharing_allocator()
    first = make_sequence(9)
    allocator.allocate(first)
    compute(allocator, first)
    scored = Sequence(
        sequence_id=2,
        prompt_ids=first.prompt_ids,
        params=SamplingParams(max_new_tokens=0, seed=0, num_prompt_logprobs=0),
    )
    pooled = Sequence(
        sequence_id=3, prompt_ids=first.prompt_ids, params=scored.params, is_pooled=True
    )
    for sequence in (scored, pooled):
        allocator.allocate(sequence)
        assert sequence.num_cached_tokens == 0
        allocator.free(sequence)


def test_an_embedding_s_blocks_are_known_to_nobody_and_taken_before_those_that_are() -> None:
    """They go by no one's salt: kept, they would only push out what others can find."""
    allocator = sharing_allocator(num_blocks=6)
    said = make_sequence(12)
    pooled = [make_sequence(12) for _ in range(2)]
    for index, sequence in enumerate(pooled):
        sequence.is_pooled, sequence.cache_salt = True, b"nobody's %d" % index
    for sequence in (said, *pooled):
        assert allocator.allocate(sequence)
        compute(allocator, sequence)
        allocator.free(sequence)
    assert num_known_tokens(allocator, said) == 8
    check_blocks(allocator, [])


def test_an_allocator_without_blocks_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        BlockAllocator(num_blocks=0, block_size=16)
