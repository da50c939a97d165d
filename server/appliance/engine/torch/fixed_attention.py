"""Attends in steps of one shape, so that a row's bits depend on its own sequence alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from appliance.engine.torch.attention import KVCache

# Below every score and finite: what has seen nothing yet is scaled by one, never by NaN.
LOWEST = -1e30


class FixedShape(NamedTuple):
    """The shapes of every product: libraries choose the order of a sum by them."""

    tile_rows: int = 64  # of linear layers; a Hopper tensor core has no smaller tile
    group_rows: int = 8  # of attention; a tile has whole groups
    span_tokens: int = 256  # keys that a group looks at in one step; whole blocks


class FixedAttention:
    """Attends for the first rows of a tile, for the layers that share a window.

    A step takes a group of rows over a span of keys and folds it into the group's running softmax,
    in float32. A span of which a row sees nothing leaves its sums as they are, to the bit: so it
    does not matter how many spans there are, nor which other rows are in the group.
    """

    def __init__(
        self, positions: torch.Tensor, tables: torch.Tensor, window: int | None, group_rows: int
    ) -> None:
        self._positions = positions  # [rows]
        self._tables = tables  # [rows, spans, blocks of a span]
        self._window = window
        self._group_rows = group_rows
        self._masks: list[torch.Tensor] = []  # one a span, made where the size of a block is known

    def attend(self, q: torch.Tensor, cache: KVCache, layer: int) -> torch.Tensor:
        """Attend with q [T, H, D]: [T, H * D], zeros for the rows that have no table."""
        out = torch.zeros(q.shape[0], q.shape[1] * q.shape[2], dtype=q.dtype, device=q.device)
        self._masks = self._masks or list(self._make_masks(cache.block_size))
        for first in range(0, len(self._tables), self._group_rows):
            rows = slice(first, first + self._group_rows)
            out[rows] = self._attend_group(q[rows], rows, cache, layer)
        return out

    def _make_masks(self, block_size: int) -> Iterator[torch.Tensor]:
        """Make what is added to the scores: [rows, 1, 1, span]."""
        num_spans, span = self._tables.shape[1], self._tables.shape[2] * block_size
        queries = self._positions[:, None]
        for first in range(0, num_spans * span, span):
            keys = torch.arange(first, first + span, device=queries.device)
            is_seen = keys <= queries
            if self._window is not None:
                is_seen &= keys > queries - self._window
            mask = torch.zeros(is_seen.shape, device=queries.device)
            yield mask.masked_fill_(~is_seen, -torch.inf)[:, None, None]

    def _attend_group(
        self, q: torch.Tensor, rows: slice, cache: KVCache, layer: int
    ) -> torch.Tensor:
        """Attend, [rows, H, D] -> [rows, H * D]; heads that share a key are rows of one product."""
        B, H, D = q.shape
        q = q.float().mul_(D**-0.5).view(B, cache.values.shape[4], -1, D)  # [B, H_kv, G, D]
        peak = torch.full_like(q[..., :1], LOWEST)
        total, mixed = torch.zeros_like(peak), torch.zeros_like(q)
        for span, mask in enumerate(self._masks):
            k, v = cache.read(layer, self._tables[rows, span])
            scores = (q @ k.transpose(2, 3)).add_(mask[rows])
            new_peak = torch.maximum(peak, scores.amax(dim=-1, keepdim=True))
            weights = scores.sub_(new_peak).exp_()
            scale = peak.sub_(new_peak).exp_()
            total = total.mul_(scale).add_(weights.sum(dim=-1, keepdim=True))
            mixed = mixed.mul_(scale).add_(weights @ v)
            peak = new_peak
        return mixed.div_(total).view(B, H * D).to(cache.values.dtype)
