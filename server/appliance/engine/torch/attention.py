"""Attends over the paged key-value cache for a ragged batch: which query sees which blocks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from appliance.engine.sequence import Chunk


class KVCache:
    """Keys and values of all layers in blocks of `block_size` tokens, addressed by block id."""

    def __init__(self, values: torch.Tensor) -> None:
        self.values = values  # [layers, 2, num_blocks, block_size, H_kv, D]
        self.block_size = values.shape[3]

    def clear(self, block_ids: torch.Tensor) -> None:
        """Zero blocks before their first use.

        Keys beyond a sequence's end are masked, but a mask does not stop a NaN: what an earlier
        sequence left there must not reach a later one.
        """
        self.values.index_fill_(2, block_ids, 0)

    def write(self, layer: int, slots: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> None:
        """Store k and v [T, H_kv, D]; slot = block id * block_size + offset in the block."""
        keys, values = self.values[layer].flatten(1, 2)
        keys.index_copy_(0, slots, k)
        values.index_copy_(0, slots, v)

    def gather(self, layer: int, group: AttentionGroup) -> tuple[torch.Tensor, torch.Tensor]:
        """Gather the keys and values that a group attends to, [B, H_kv, S, D]."""
        keys, values = self.values[layer]
        return self._gather(keys, group), self._gather(values, group)

    def read(self, layer: int, block_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Read keys and values in float32, as many blocks for each of B rows: [B, H_kv, S, D]."""
        keys, values = self.values[layer]
        return self._read(keys, block_ids), self._read(values, block_ids)

    def _read(self, stored: torch.Tensor, block_ids: torch.Tensor) -> torch.Tensor:
        blocks = stored.index_select(0, block_ids.flatten())
        rows = blocks.view(len(block_ids), -1, *stored.shape[2:]).transpose(1, 2)
        return rows.to(torch.float32, memory_format=torch.contiguous_format)

    def _gather(self, stored: torch.Tensor, group: AttentionGroup) -> torch.Tensor:
        blocks = stored.index_select(0, group.block_ids)
        rows = blocks.view(group.num_sequences, -1, *stored.shape[2:])
        return rows[:, group.first_key : group.end_key].transpose(1, 2)


class Attends(Protocol):
    """Attends for the rows of one forward pass; shared by several layers."""

    def attend(self, q: torch.Tensor, cache: KVCache, layer: int) -> torch.Tensor:
        """Attend with q [T, H, D] over the cache, this batch included: [T, H * D]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionGroup:
    """What one attention call computes: a prefill chunk, or decode tokens of several sequences.

    `block_ids` has the same number of blocks for each sequence; of the keys in them, [first_key,
    end_key) take part, less those that `mask` forbids.
    """

    rows: torch.Tensor | None  # which tokens of the batch; None: all, in order
    num_sequences: int
    block_ids: torch.Tensor  # [B * blocks]
    first_key: int
    end_key: int
    mask: torch.Tensor | None  # added to the scores: [T, S] for one chunk, [B, 1, 1, S] for decode
    is_causal: bool  # the plain triangle, in place of a mask


class AttentionPlan:
    """How one batch is grouped for the layers that share a window."""

    def __init__(self, groups: Sequence[AttentionGroup]) -> None:
        self.groups = groups

    def attend(self, q: torch.Tensor, cache: KVCache, layer: int) -> torch.Tensor:
        out = torch.empty(q.shape[0], q.shape[1] * q.shape[2], dtype=q.dtype, device=q.device)
        for group in self.groups:
            if group.rows is None:
                return _attend(q, cache, layer, group)
            part = _attend(q.index_select(0, group.rows), cache, layer, group)
            out.index_copy_(0, group.rows, part)
        return out


def _attend(q: torch.Tensor, cache: KVCache, layer: int, group: AttentionGroup) -> torch.Tensor:
    k, v = cache.gather(layer, group)
    num_tokens, H, D = q.shape
    B, H_kv = group.num_sequences, k.shape[1]
    if num_tokens == B:
        # One query a sequence: the heads that share a key become the rows of one product.
        q = q.view(B, H_kv, H // H_kv, D)
        out = functional.scaled_dot_product_attention(q, k, v, attn_mask=group.mask)
        return out.reshape(B, H * D)
    q = q.view(B, -1, H, D).transpose(1, 2)
    out = functional.scaled_dot_product_attention(
        q, k, v, attn_mask=group.mask, is_causal=group.is_causal, enable_gqa=H_kv < H
    )
    return out.transpose(1, 2).reshape(num_tokens, H * D)


@dataclass(frozen=True, slots=True)
class _Span:
    """A chunk, where its rows begin in the batch, and the first key it may look at."""

    chunk: Chunk
    first_row: int
    first_key: int
    block_size: int

    @property
    def end(self) -> int:
        return self.chunk.start + self.chunk.length

    @property
    def first_block(self) -> int:
        return self.first_key // self.block_size

    @property
    def block_ids(self) -> list[int]:
        end_block = -(-self.end // self.block_size)
        return self.chunk.sequence.block_table[self.first_block : end_block]


def plan_attention(
    chunks: Iterable[Chunk],
    window: int | None,
    block_size: int,
    device: torch.device,
    dtype: torch.dtype,
) -> AttentionPlan:
    """Group a batch's chunks for layers in which a token sees itself and `window` - 1 before it."""
    groups: list[list[_Span]] = []
    decoding: dict[int, list[_Span]] = {}
    row = 0
    for chunk in chunks:
        first_key = 0 if window is None else max(0, chunk.start - window + 1)
        span = _Span(chunk, row, first_key, block_size)
        row += chunk.length
        if chunk.length > 1:
            groups.append([span])
        else:
            # Alike in length to a factor of two, so that padding at most doubles the work.
            decoding.setdefault(len(span.block_ids).bit_length(), []).append(span)
    groups += decoding.values()
    build = _GroupBuilder(window, block_size, device, dtype)
    return AttentionPlan([build(spans, is_whole_batch=len(groups) == 1) for spans in groups])


@dataclass(frozen=True, slots=True)
class _GroupBuilder:
    """Turns the spans of one group into tensors."""

    window: int | None
    block_size: int
    device: torch.device
    dtype: torch.dtype

    def __call__(self, spans: list[_Span], *, is_whole_batch: bool) -> AttentionGroup:
        rows = None if is_whole_batch else self._rows(spans)
        if len(spans) == 1:
            return self._single(spans[0], rows)
        tables = [span.block_ids for span in spans]
        num_blocks = max(map(len, tables))
        # Padding repeats a block of the sequence itself: never one that another may write to.
        padded = [block for ids in tables for block in ids + ids[-1:] * (num_blocks - len(ids))]
        return AttentionGroup(
            rows=rows,
            num_sequences=len(spans),
            block_ids=torch.tensor(padded, device=self.device),
            first_key=0,
            end_key=num_blocks * self.block_size,
            mask=self._decode_mask(spans, num_blocks),
            is_causal=False,
        )

    def _single(self, span: _Span, rows: torch.Tensor | None) -> AttentionGroup:
        """Cut one chunk to exactly the keys it sees; a decode token then needs no mask."""
        offset = span.first_block * self.block_size
        fits_window = self.window is None or span.end <= self.window
        is_triangle = span.chunk.start == 0 and fits_window
        needs_mask = span.chunk.length > 1 and not is_triangle
        return AttentionGroup(
            rows=rows,
            num_sequences=1,
            block_ids=torch.tensor(span.block_ids, device=self.device),
            first_key=span.first_key - offset,
            end_key=span.end - offset,
            mask=self._chunk_mask(span) if needs_mask else None,
            is_causal=is_triangle,
        )

    def _rows(self, spans: list[_Span]) -> torch.Tensor:
        rows = [span.first_row + i for span in spans for i in range(span.chunk.length)]
        return torch.tensor(rows, device=self.device)

    def _chunk_mask(self, span: _Span) -> torch.Tensor:
        queries = torch.arange(span.chunk.start, span.end, device=self.device)[:, None]
        keys = torch.arange(span.first_key, span.end, device=self.device)
        is_seen = keys <= queries
        if self.window is not None:
            is_seen &= keys > queries - self.window
        return self._additive(is_seen)

    def _decode_mask(self, spans: list[_Span], num_blocks: int) -> torch.Tensor:
        offsets = [span.first_block * self.block_size for span in spans]
        bounds = [
            (span.first_key - offset, span.end - offset)
            for span, offset in zip(spans, offsets, strict=True)
        ]
        first, end = torch.tensor(bounds, device=self.device).T[..., None]
        keys = torch.arange(num_blocks * self.block_size, device=self.device)
        return self._additive((keys >= first) & (keys < end))[:, None, None]

    def _additive(self, is_seen: torch.Tensor) -> torch.Tensor:
        mask = torch.zeros(is_seen.shape, dtype=self.dtype, device=self.device)
        return mask.masked_fill_(~is_seen, -torch.inf)
