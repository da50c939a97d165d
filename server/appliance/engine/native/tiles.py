"""Converts quantized matrices between the rows of files and the tiles of the kernels.

The tiles are described in kernels/linear_layout.h, the rows in model/quantized.py. Both ways only
move bytes, so a stored matrix computes the same bits as one that is quantized at the start.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from appliance.engine.model.quantized import GROUP, SUBGROUP
from appliance.engine.native.kernels.library import COLUMN_TILE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    Bytes = NDArray[np.uint8]
    Parts = Mapping[str, NDArray[np.generic]]

ROWS_AT_ONCE = 32 * COLUMN_TILE  # bounds what a conversion takes besides its result
ZERO_NIBBLE = 8  # how the kernels quantize nothing but zeros
SCALES_SIZE = 2 * COLUMN_TILE  # of a group of a tile
CODES_SIZE = GROUP // SUBGROUP * COLUMN_TILE


class Groups(NamedTuple):
    """Views of G groups of equal length, one behind the other in each of T tiles."""

    scales: Bytes  # [T, G, SCALES_SIZE]
    codes: Bytes  # [T, G, outputs, subgroups], without subgroups for int8
    lines: Bytes  # [T, G, L, outputs, 4]


def read_rows(tiles: Bytes, kind: str, n: int, k: int) -> dict[str, NDArray[np.generic]]:
    """Convert a packed matrix to its stored form."""
    groups = _groups(tiles.reshape(-(-n // COLUMN_TILE), -1), kind, k)
    scales = np.concatenate([_split_scales(some.scales) for some in groups], axis=1)
    lines = np.concatenate([_split_lines(some.lines) for some in groups], axis=1)
    if kind == "int8":
        weight = (lines.reshape(len(lines), -1)[:n, :k] ^ 0x80).view(np.int8)
        return {"weight": weight, "scales": scales[:n]}
    nibbles = np.stack([lines & 15, lines >> 4], axis=2).reshape(len(lines), -1)
    nibbles = nibbles[:n, : k + k % 2]
    if k % 2:
        nibbles[:, k] = 0
    weight = nibbles[:, ::2] | nibbles[:, 1::2] << 4
    codes = np.concatenate([_split_codes(some.codes) for some in groups], axis=1)
    return {"weight": weight, "codes": codes[:n, : -(-k // SUBGROUP)], "scales": scales[:n]}


def write_tiles(parts: Parts, kind: str, n: int, k: int, tiles: Bytes) -> None:
    """Convert stored rows to tiles: exactly the bytes that packing would write."""
    by_tile = tiles.reshape(-(-n // COLUMN_TILE), -1)
    for first in range(0, n, ROWS_AT_ONCE):
        some = {
            name: _whole_tiles(part[first : first + ROWS_AT_ONCE]) for name, part in parts.items()
        }
        num_tiles = len(some["scales"]) // COLUMN_TILE
        groups = _groups(by_tile[first // COLUMN_TILE :][:num_tiles], kind, k)
        num_padding = -n % COLUMN_TILE if first + ROWS_AT_ONCE >= n else 0
        if kind == "int8":
            _write_lines(_join_int8(some["weight"].view(np.uint8), k), groups)
        else:
            weight, codes = some["weight"].view(np.uint8), some["codes"].view(np.uint8)
            if num_padding:
                codes[-num_padding:] = ZERO_NIBBLE << 4
            _write_lines(_join_int4(weight, codes, k, num_padding), groups)
            _write_codes(codes, groups)
        _write_scales(some["scales"].view(np.uint16), groups)


def _num_quads(k: int) -> int:
    return -(-k // 8) * 2


def _whole_tiles(rows: NDArray[np.generic]) -> NDArray[np.generic]:
    return np.pad(rows, ((0, -len(rows) % COLUMN_TILE), (0, 0)))


def _groups(by_tile: Bytes, kind: str, k: int) -> list[Groups]:
    """Return the whole groups, and the last if it is shorter."""
    num_whole, rest = divmod(_num_quads(k), GROUP // 4)
    header = SCALES_SIZE + (0 if kind == "int8" else CODES_SIZE)
    groups, at = [], 0
    for num_groups, num_quads in ((num_whole, GROUP // 4), (1, rest)):
        num_lines = num_quads if kind == "int8" else num_quads // 2
        if num_groups and num_lines:
            size = num_groups * (header + num_lines * 4 * COLUMN_TILE)
            some = by_tile[:, at : at + size].reshape(len(by_tile), num_groups, -1)
            shape = (*some.shape[:2], num_lines, COLUMN_TILE, 4)
            codes = some[:, :, SCALES_SIZE:header].reshape(*some.shape[:2], COLUMN_TILE, -1)
            groups.append(
                Groups(some[:, :, :SCALES_SIZE], codes, some[:, :, header:].reshape(shape))
            )
            at += size
    return groups


def _split_scales(scales: Bytes) -> NDArray[np.uint16]:
    by_group = np.ascontiguousarray(scales).view(np.uint16)  # [T, G, outputs]
    return by_group.swapaxes(1, 2).reshape(-1, scales.shape[1])


def _write_scales(scales: NDArray[np.uint16], groups: list[Groups]) -> None:
    by_group = scales.reshape(-1, COLUMN_TILE, scales.shape[1]).swapaxes(1, 2)
    stored = np.ascontiguousarray(by_group).view(np.uint8)
    first = 0
    for some in groups:
        some.scales[:] = stored[:, first : first + some.scales.shape[1]]
        first += some.scales.shape[1]


def _split_codes(codes: Bytes) -> Bytes:
    return codes.swapaxes(1, 2).reshape(codes.shape[0] * COLUMN_TILE, -1)


def _write_codes(codes: Bytes, groups: list[Groups]) -> None:
    num_subgroups, first = GROUP // SUBGROUP, 0
    whole = np.pad(codes, ((0, 0), (0, -codes.shape[1] % num_subgroups)))
    by_group = whole.reshape(-1, COLUMN_TILE, whole.shape[1] // num_subgroups, num_subgroups)
    for some in groups:
        num_groups = some.codes.shape[1]
        some.codes[:] = by_group[:, :, first : first + num_groups].swapaxes(1, 2)
        first += num_groups


def _split_lines(lines: Bytes) -> Bytes:
    """Reshape to [outputs, lines, 4]."""
    return lines.transpose(0, 3, 1, 2, 4).reshape(lines.shape[0] * COLUMN_TILE, -1, 4)


def _write_lines(lines: Bytes, groups: list[Groups]) -> None:
    first = 0
    for some in groups:
        num_tiles, num_groups, num_lines = some.lines.shape[:3]
        end = first + num_groups * num_lines
        shape = (num_tiles, COLUMN_TILE, num_groups, num_lines, 4)
        some.lines[:] = lines[:, first:end].reshape(shape).transpose(0, 2, 3, 1, 4)
        first = end


def _join_int8(weight: Bytes, k: int) -> Bytes:
    values: Bytes = np.pad(weight, ((0, 0), (0, 4 * _num_quads(k) - k)))
    return (values ^ np.uint8(0x80)).reshape(len(weight), -1, 4)


def _join_int4(weight: Bytes, codes: Bytes, k: int, num_padding: int) -> Bytes:
    num_rows, num_inputs = len(weight), 4 * _num_quads(k)
    nibbles = np.stack([weight & 15, weight >> 4], axis=2).reshape(num_rows, -1)[:, :k]
    if num_padding:
        nibbles[-num_padding:] = ZERO_NIBBLE
    zeros = np.repeat(codes[:, -1:] >> 4, num_inputs - k, axis=1)  # inputs that are not there
    quads: Bytes = np.concatenate([nibbles, zeros], axis=1).reshape(num_rows, -1, 2, 4)
    return quads[:, :, 0] | quads[:, :, 1] << np.uint8(4)
