"""Quantized matrices between the rows that files hold and the tiles that the kernels read.

The tiles are described in kernels/linear_layout.h, the rows in model/quantized.py. Both ways only
move bytes, so a stored matrix computes the same bits as one that is quantized at the start.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from appliance.engine.kernels.library import COLUMN_TILE
from appliance.engine.model.quantized import GROUP, SUBGROUP

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    Bytes = NDArray[np.uint8]
    Parts = Mapping[str, NDArray[np.generic]]

LINE = 64
ROWS_AT_ONCE = 64 * COLUMN_TILE  # bounds what a conversion takes besides its result
GROUP_LINES = 1 + GROUP // 8  # of int4: codes, then nibbles
ZERO_NIBBLE = 8  # how the kernels quantize nothing but zeros


def read_rows(tiles: Bytes, kind: str, n: int, k: int) -> dict[str, NDArray[np.generic]]:
    """The stored form of a packed matrix."""
    by_tile = tiles.reshape(-(-n // COLUMN_TILE), -1)
    scales = _split_scales(by_tile, k)
    lines = by_tile[:, _scales_size(k) :]
    if kind == "int8":
        values = lines.reshape(len(lines), -1, COLUMN_TILE, 4).swapaxes(1, 2)
        weight = (values.reshape(-1, 4 * _num_quads(k))[:n, :k] ^ 0x80).view(np.int8)
        return {"weight": weight, "scales": scales[:n]}
    nibbles, codes = _split_int4(lines, k)
    nibbles = nibbles[:n, : k + k % 2]
    if k % 2:
        nibbles[:, k] = 0
    weight = nibbles[:, ::2] | nibbles[:, 1::2] << 4
    return {"weight": weight, "codes": codes[:n, : -(-k // SUBGROUP)], "scales": scales[:n]}


def write_tiles(parts: Parts, kind: str, n: int, k: int, tiles: Bytes) -> None:
    """Put stored rows where the kernels read them: exactly the bytes that packing would."""
    by_tile = tiles.reshape(-(-n // COLUMN_TILE), -1)
    for first in range(0, n, ROWS_AT_ONCE):
        some = {
            name: _whole_tiles(part[first : first + ROWS_AT_ONCE]) for name, part in parts.items()
        }
        to = by_tile[first // COLUMN_TILE :][: len(some["scales"]) // COLUMN_TILE]
        _join_scales(some["scales"].view(np.uint16), k, to)
        lines = to[:, _scales_size(k) :]
        num_padding = -n % COLUMN_TILE if first + ROWS_AT_ONCE >= n else 0
        if kind == "int8":
            _join_int8(some["weight"].view(np.uint8), k, lines)
        else:
            _join_int4(*_as_bytes(some), k, num_padding, lines)


def _as_bytes(parts: Parts) -> tuple[Bytes, Bytes]:
    return parts["weight"].view(np.uint8), parts["codes"].view(np.uint8)


def _num_quads(k: int) -> int:
    return -(-k // 8) * 2


def _scales_size(k: int) -> int:
    return -(-(-(-k // GROUP) * COLUMN_TILE * 2) // LINE) * LINE


def _whole_tiles(rows: NDArray[np.generic]) -> NDArray[np.generic]:
    return np.pad(rows, ((0, -len(rows) % COLUMN_TILE), (0, 0)))


def _split_scales(by_tile: Bytes, k: int) -> NDArray[np.uint16]:
    num_groups = -(-k // GROUP)
    stored = np.ascontiguousarray(by_tile[:, : num_groups * COLUMN_TILE * 2]).view(np.uint16)
    scales = stored.reshape(-1, num_groups, COLUMN_TILE).swapaxes(1, 2)
    return np.ascontiguousarray(scales).reshape(-1, num_groups)


def _join_scales(scales: NDArray[np.uint16], k: int, to: Bytes) -> None:
    by_group = scales.reshape(len(to), COLUMN_TILE, -1).swapaxes(1, 2)
    stored = np.ascontiguousarray(by_group).reshape(len(to), -1).view(np.uint8)
    to[:, : _scales_size(k)] = 0
    to[:, : stored.shape[1]] = stored


def _join_int8(weight: Bytes, k: int, lines: Bytes) -> None:
    values = np.pad(weight, ((0, 0), (0, 4 * _num_quads(k) - k))) ^ 0x80
    by_quad = values.reshape(len(lines), COLUMN_TILE, -1, 4).swapaxes(1, 2)
    lines[:] = by_quad.reshape(len(lines), -1)


def _int4_groups(lines: Bytes, k: int) -> list[Bytes]:
    """Views of the whole groups, and of the last if it is shorter: [T, G, lines, 16, 4]."""
    num_whole, rest = divmod(_num_quads(k), GROUP // 4)
    cut = num_whole * GROUP_LINES * LINE
    views = [lines[:, :cut].reshape(len(lines), num_whole, GROUP_LINES, COLUMN_TILE, 4)]
    if rest:
        views.append(lines[:, cut:].reshape(len(lines), 1, 1 + rest // 2, COLUMN_TILE, 4))
    return views


def _split_int4(lines: Bytes, k: int) -> tuple[Bytes, Bytes]:
    """Nibbles [rows, inputs], one a byte, and codes [rows, subgroups]."""
    groups = _int4_groups(lines, k)
    codes = np.concatenate([group[:, :, 0] for group in groups], axis=1).swapaxes(1, 2)
    flat = [group[:, :, 1:].reshape(len(lines), -1, COLUMN_TILE, 4) for group in groups]
    pairs = np.concatenate(flat, axis=1).swapaxes(1, 2)  # [T, 16, quads / 2, 4]
    nibbles = np.stack([pairs & 15, pairs >> 4], axis=3)
    num_rows = len(lines) * COLUMN_TILE
    return nibbles.reshape(num_rows, -1), codes.reshape(num_rows, -1)


def _join_int4(weight: Bytes, codes: Bytes, k: int, num_padding: int, lines: Bytes) -> None:
    num_rows, num_inputs = len(weight), 4 * _num_quads(k)
    nibbles = np.stack([weight & 15, weight >> 4], axis=2).reshape(num_rows, -1)[:, :k]
    if num_padding:
        nibbles[-num_padding:], codes[-num_padding:] = ZERO_NIBBLE, ZERO_NIBBLE << 4
    zeros = np.repeat(codes[:, -1:] >> 4, num_inputs - k, axis=1)  # inputs that are not there
    nibbles = np.concatenate([nibbles, zeros], axis=1)
    quads = nibbles.reshape(len(lines), COLUMN_TILE, -1, 2, 4)
    pairs = (quads[:, :, :, 0] | quads[:, :, :, 1] << 4).swapaxes(1, 2)  # [T, quads / 2, 16, 4]
    num_groups = -(-k // GROUP)
    codes = np.pad(codes, ((0, 0), (0, num_groups * 4 - codes.shape[1])))
    by_group = codes.reshape(len(lines), COLUMN_TILE, num_groups, 4).swapaxes(1, 2)
    first = 0
    for group, at in zip(_int4_groups(lines, k), (0, num_groups - 1), strict=False):
        num_lines = group.shape[1] * (group.shape[2] - 1)
        group[:, :, 0] = by_group[:, at : at + group.shape[1]]
        shape = (len(lines), group.shape[1], group.shape[2] - 1, COLUMN_TILE, 4)
        group[:, :, 1:] = pairs[:, first : first + num_lines].reshape(shape)
        first += num_lines
