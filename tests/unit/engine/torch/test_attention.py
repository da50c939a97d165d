"""How a batch is grouped, and that a group sees exactly the keys it may."""

from __future__ import annotations

import torch

from appliance.engine.sequence import Chunk, LogitRows, SamplingParams, Sequence
from appliance.engine.torch.attention import (
    AttentionGroup,
    AttentionPlan,
    KVCache,
    plan_attention,
)

BLOCK_SIZE = 4
CPU = torch.device("cpu")


def chunk(block_table: list[int], start: int, length: int) -> Chunk:
    sequence = Sequence(
        sequence_id=block_table[0],
        prompt_ids=tuple(range(start + length)),
        params=SamplingParams(max_new_tokens=0, seed=0),
        block_table=block_table,
    )
    return Chunk(sequence, start, length, LogitRows.LAST)


def plan(*chunks: Chunk, window: int | None = None) -> AttentionPlan:
    return plan_attention(chunks, window, BLOCK_SIZE, CPU, torch.float32)


def seen_keys(group: AttentionGroup) -> list[list[int]]:
    """For each row of the mask, which of the group's keys it lets through."""
    assert group.mask is not None
    rows = group.mask.reshape(-1, group.mask.shape[-1])
    return [torch.nonzero(row == 0).flatten().tolist() for row in rows]


def test_a_whole_prompt_needs_no_mask() -> None:
    (group,) = plan(chunk([5, 2], 0, 6)).groups
    assert group.is_causal
    assert group.mask is None
    assert group.rows is None
    assert group.block_ids.tolist() == [5, 2]
    assert (group.first_key, group.end_key) == (0, 6)


def test_a_decode_token_alone_is_cut_to_its_keys() -> None:
    (group,) = plan(chunk([5, 2], 5, 1)).groups
    assert (group.first_key, group.end_key) == (0, 6)
    assert not group.is_causal
    assert group.mask is None


def test_a_later_chunk_sees_the_past_and_not_the_future() -> None:
    (group,) = plan(chunk([5, 2], 3, 3)).groups
    assert not group.is_causal
    assert seen_keys(group) == [[0, 1, 2, 3], [0, 1, 2, 3, 4], [0, 1, 2, 3, 4, 5]]


def test_blocks_that_lie_before_the_window_are_not_gathered() -> None:
    (group,) = plan(chunk([5, 2, 7], 9, 1), window=3).groups
    assert group.block_ids.tolist() == [2, 7]
    assert (group.first_key, group.end_key) == (3, 6)  # positions 7, 8, 9


def test_a_window_moves_along_the_chunk() -> None:
    (group,) = plan(chunk([5, 2, 7], 5, 3), window=2).groups
    assert group.block_ids.tolist() == [2]
    assert (group.first_key, group.end_key) == (0, 4)  # positions 4 to 7
    assert seen_keys(group) == [[0, 1], [1, 2], [2, 3]]


def test_a_prompt_longer_than_the_window_gets_a_mask() -> None:
    (short,) = plan(chunk([5], 0, 3), window=3).groups
    (long,) = plan(chunk([5], 0, 4), window=3).groups
    assert short.is_causal
    assert seen_keys(long) == [[0], [0, 1], [0, 1, 2], [1, 2, 3]]


def test_decode_tokens_of_like_length_share_a_call() -> None:
    chunks = [chunk([1, 2], 6, 1), chunk([3, 4, 5], 8, 1), chunk([6, 7, 8], 0, 10)]
    prefill, decode = plan(*chunks).groups
    assert prefill.rows is not None
    assert prefill.rows.tolist() == list(range(2, 12))
    assert decode.rows is not None
    assert decode.rows.tolist() == [0, 1]
    # The shorter table is padded with a block of its own.
    assert decode.block_ids.tolist() == [1, 2, 2, 3, 4, 5]
    assert seen_keys(decode) == [list(range(7)), list(range(9))]


def test_decode_tokens_of_very_different_length_do_not() -> None:
    chunks = [chunk([1], 2, 1), chunk(list(range(2, 12)), 39, 1)]
    assert [group.num_sequences for group in plan(*chunks).groups] == [1, 1]


def test_decode_windows_start_where_each_sequence_needs_them() -> None:
    chunks = [chunk([1, 2, 3], 9, 1), chunk([4, 5, 6, 7], 13, 1)]
    (group,) = plan(*chunks, window=3).groups
    assert group.block_ids.tolist() == [2, 3, 6, 7]
    assert seen_keys(group) == [[3, 4, 5], [3, 4, 5]]  # positions 7 to 9, and 11 to 13


def test_keys_are_found_where_they_were_written() -> None:
    cache = KVCache(torch.zeros(2, 2, 8, BLOCK_SIZE, 1, 2))
    k, v = torch.randn(6, 1, 2), torch.randn(6, 1, 2)
    slots = torch.tensor([20, 21, 22, 23, 8, 9])  # blocks 5 and 2
    cache.write(1, slots, k, v)
    (group,) = plan(chunk([5, 2], 0, 6)).groups
    found_k, found_v = cache.gather(1, group)
    assert torch.equal(found_k[0].transpose(0, 1), k)
    assert torch.equal(found_v[0].transpose(0, 1), v)
    assert not cache.values[0].any()


def test_clearing_touches_the_named_blocks_alone() -> None:
    cache = KVCache(torch.ones(2, 2, 4, BLOCK_SIZE, 1, 2))
    cache.clear(torch.tensor([2]))
    assert not cache.values[:, :, 2].any()
    assert cache.values[:, :, [0, 1, 3]].all()
