"""Computes a forward pass in tiles of one shape over fixed tensors: fixed arithmetic on torch."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from appliance.engine.torch.cuda import GraphPool
from appliance.engine.torch.fixed_attention import FixedAttention, FixedShape

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

    from appliance.engine.sequence import Chunk
    from appliance.engine.torch.attention import KVCache
    from appliance.engine.torch.llama import LlamaModel

# A graph has nodes for each step of attention, so longer contexts are computed without one.
MAX_GRAPH_SPANS = 16


class TiledForward:
    """Computes the rows of a batch, one tile of them after the other.

    Every product has one shape for any amount of work: a tile is filled up with rows that
    write to a block of their own, the cache's last. Only how many groups of rows and how many spans
    of keys attention visits differs, in powers of two, and neither changes a bit of a row.
    """

    def __init__(
        self,
        model: LlamaModel,
        cache: KVCache,
        windows: Iterable[int | None],
        shape: FixedShape,
        max_context_tokens: int,
    ) -> None:
        if shape.tile_rows % shape.group_rows or shape.span_tokens % cache.block_size:
            raise ValueError(f"{shape} leaves a rest, which would be another shape")
        self._model, self._cache, self._shape = model, cache, shape
        self._windows = frozenset(windows)
        self._max_spans = -(-max_context_tokens // shape.span_tokens)
        self.max_graph_spans = MAX_GRAPH_SPANS
        self.graphs = GraphPool(cache.values.device)
        self._passes: dict[tuple[int, int], Callable[[], None]] = {}
        self._compute_head = self.graphs.wrap(self._head_pass)

        rows, values = shape.tile_rows, cache.values
        blocks_a_span = shape.span_tokens // cache.block_size
        vocab_size, hidden_size = model.head.weight.shape
        ids = torch.zeros(rows, 3 + self._max_spans * blocks_a_span, dtype=torch.int64)
        self._ids = ids.to(values.device)
        self._hidden = torch.zeros(rows, hidden_size, dtype=values.dtype, device=values.device)
        self._wanted = torch.zeros_like(self._hidden)
        self._logits = torch.zeros(rows, vocab_size, device=values.device)

    def compute_hidden(self, chunks: tuple[Chunk, ...]) -> torch.Tensor:
        """Compute final hidden states [T, hidden]; later tiles read what earlier ones wrote."""
        num_keys = max(chunk.start + chunk.length for chunk in chunks)
        num_spans = _power_of_two(-(-num_keys // self._shape.span_tokens), self._max_spans)
        rows = np.concatenate([self._describe(chunk, num_spans) for chunk in chunks])
        tiles = range(0, len(rows), self._shape.tile_rows)
        return torch.cat(
            [self._compute_tile(rows[at : at + self._shape.tile_rows], num_spans) for at in tiles]
        )

    def compute_logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Compute logits, [R, hidden] -> [R, V] in float32."""
        parts = [self._logits[:0]]
        for part in hidden.split(self._shape.tile_rows) if len(hidden) else ():
            self._wanted[: len(part)] = part
            self._compute_head()
            parts.append(self._logits[: len(part)].clone())
        return torch.cat(parts)

    def _describe(self, chunk: Chunk, num_spans: int) -> NDArray[np.int64]:
        """Fill `_ids` for each row: token id, position, slot, and the blocks it attends to."""
        block_size, end = self._cache.block_size, chunk.start + chunk.length
        blocks = np.array(chunk.sequence.block_table[: -(-end // block_size)])
        width = num_spans * self._shape.span_tokens // block_size
        rows = np.empty((chunk.length, 3 + width), np.int64)
        positions = np.arange(chunk.start, end)
        rows[:, 0] = chunk.token_ids
        rows[:, 1] = positions
        rows[:, 2] = blocks[positions // block_size] * block_size + positions % block_size
        # Beyond its end a sequence repeats a block of its own: never one that another may write to.
        rows[:, 3:] = np.pad(blocks, (0, width - len(blocks)), mode="edge")
        return rows

    def _compute_tile(self, rows: NDArray[np.int64], num_spans: int) -> torch.Tensor:
        tile_rows, group_rows = self._shape.tile_rows, self._shape.group_rows
        num_groups = _power_of_two(-(-len(rows) // group_rows), tile_rows // group_rows)
        spare_block = self._cache.values.shape[2] - 1
        filled = np.full((tile_rows, rows.shape[1]), spare_block, np.int64)
        filled[:, :3] = (0, 0, spare_block * self._cache.block_size)
        filled[: len(rows)] = rows
        self._ids[:, : rows.shape[1]] = torch.from_numpy(filled)
        self._find_pass(num_groups, num_spans)()
        return self._hidden[: len(rows)].clone()

    def _find_pass(self, num_groups: int, num_spans: int) -> Callable[[], None]:
        key = num_groups, num_spans
        function = partial(self._tile_pass, num_groups, num_spans)
        if num_spans > self.max_graph_spans:
            return function
        if key not in self._passes:
            self._passes[key] = self.graphs.wrap(function)
        return self._passes[key]

    def _tile_pass(self, num_groups: int, num_spans: int) -> None:
        tokens, positions, slots = (column.contiguous() for column in self._ids[:, :3].unbind(1))
        num_rows = num_groups * self._shape.group_rows
        width = num_spans * self._shape.span_tokens // self._cache.block_size
        tables = self._ids[:num_rows, 3 : 3 + width].reshape(num_rows, num_spans, -1)
        plans = {
            window: FixedAttention(positions[:num_rows], tables, window, self._shape.group_rows)
            for window in self._windows
        }
        hidden = self._model.compute_hidden(tokens, positions, slots, plans, self._cache)
        self._hidden.copy_(hidden)

    def _head_pass(self) -> None:
        self._logits.copy_(self._model.compute_logits(self._wanted))


def _power_of_two(count: int, most: int) -> int:
    """Return the smallest power of two that is not below `count`, but at most `most`."""
    return min(1 << (count - 1).bit_length(), most)
