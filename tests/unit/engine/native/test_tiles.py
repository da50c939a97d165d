"""Rows and tiles hold the same matrix: there and back changes no byte."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.engine.model.quantized import GROUP, SUBGROUP, parts_of
from appliance.engine.native.kernels.build import find_compiler, load_library
from appliance.engine.native.kernels.library import WEIGHT_KINDS, NativeLibrary, Weight
from appliance.engine.native.stored_tensors import to_bfloat16
from appliance.engine.native.tiles import read_rows, write_tiles
from tests.kernel_cache import KERNEL_CACHE

Bytes = np.typing.NDArray[np.uint8]
Floats = np.typing.NDArray[np.float32]


@pytest.fixture(scope="module")
def library() -> NativeLibrary:
    found = load_library(KERNEL_CACHE)
    if find_compiler() is None:
        pytest.skip(found.reason)
    assert found.library is not None, found.reason
    return found.library


def random_matrix(n: int, k: int, seed: int) -> Floats:
    values = np.random.default_rng(seed).standard_t(4, (n, k)).astype(np.float32)
    return (to_bfloat16(values, "F32").astype(np.uint32) << 16).view(np.float32)


def pack(library: NativeLibrary, kind: str, matrix: Floats) -> Bytes:
    n, k = matrix.shape
    memory = np.zeros(library.weight_size(WEIGHT_KINDS[kind], n, k) + 64, np.uint8)
    packed = memory[-memory.ctypes.data % 64 :][: len(memory) - 64]
    words = to_bfloat16(matrix, "F32")
    pool = library.pool_create(1)
    weight = Weight(WEIGHT_KINDS[kind], n, k, None)
    library.pack_weight(pool, ctypes.byref(weight), packed.ctypes.data, words.ctypes.data)
    library.pool_destroy(pool)
    return packed


@given(
    kind=st.sampled_from(["int8", "int4"]),
    n=st.integers(1, 70),
    k=st.integers(1, 400),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=60, deadline=None)
def test_rows_make_the_very_tiles_they_were_read_from(
    kind: str, n: int, k: int, seed: int, library: NativeLibrary
) -> None:
    packed = pack(library, kind, random_matrix(n, k, seed))
    rows = read_rows(packed, kind, n, k)
    assert {name: part.shape for name, part in rows.items()} == {
        name: shape for name, (_, shape) in parts_of(kind, n, k).items()
    }
    tiles = np.full_like(packed, 77)
    write_tiles(rows, kind, n, k, tiles)
    assert tiles.tobytes() == packed.tobytes()


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_a_matrix_of_many_tiles_is_converted_piece_by_piece(
    kind: str, library: NativeLibrary
) -> None:
    packed = pack(library, kind, random_matrix(2100, 136, 5))
    tiles = np.zeros_like(packed)
    write_tiles(read_rows(packed, kind, 2100, 136), kind, 2100, 136, tiles)
    assert tiles.tobytes() == packed.tobytes()


def widen(words: np.typing.NDArray[np.generic]) -> Floats:
    return (words.astype(np.uint32) << 16).view(np.float32)


def restore(rows: dict[str, np.typing.NDArray[np.generic]], kind: str, k: int) -> Floats:
    """The matrix, by the definition in model/quantized.py."""
    scales = np.repeat(widen(rows["scales"]), GROUP, axis=1)[:, :k]
    weight = rows["weight"]
    if kind == "int8":
        return weight.astype(np.float32) * scales
    packed = weight.astype(np.uint8)
    nibbles = np.stack([packed & 15, packed >> 4], axis=2).reshape(len(packed), -1)[:, :k]
    codes = np.repeat(rows["codes"].astype(np.uint8), SUBGROUP, axis=1)[:, :k]
    zeros, steps = (codes >> 4).astype(np.float32), (codes & 15).astype(np.float32)
    return (nibbles - zeros) * steps * scales


def q8_0(matrix: Floats) -> Floats:
    """llama.cpp's Q8_0: groups of 32, a half-precision scale that spans the largest value."""
    x = matrix.reshape(-1, 32)
    largest = np.abs(x).max(axis=1, keepdims=True)
    scale = (largest / 127).astype(np.float16).astype(np.float32)
    return np.asarray(np.rint(x * (127 / largest)) * scale).reshape(matrix.shape)


def q4_0(matrix: Floats) -> Floats:
    """llama.cpp's Q4_0: groups of 32, a half-precision scale that puts the largest at -8."""
    x = matrix.reshape(-1, 32)
    largest = np.take_along_axis(x, np.abs(x).argmax(axis=1)[:, None], axis=1)
    scale = largest / -8
    nibbles = np.minimum(15, np.floor(x / scale + 8.5))
    return ((nibbles - 8) * scale.astype(np.float16).astype(np.float32)).reshape(matrix.shape)


def error(restored: Floats, matrix: Floats) -> float:
    return float(np.sqrt(np.square(restored - matrix).mean() / np.square(matrix).mean()))


@pytest.mark.parametrize(("degrees", "seed"), [(3, 1), (5, 2), (100, 3)])
def test_four_bits_are_better_than_q4_0(degrees: int, seed: int, library: NativeLibrary) -> None:
    values = np.random.default_rng(seed).standard_t(degrees, (256, 1024)).astype(np.float32) * 0.02
    matrix = widen(to_bfloat16(values, "F32"))
    rows = read_rows(pack(library, "int4", matrix), "int4", 256, 1024)
    assert error(restore(rows, "int4", 1024), matrix) < 0.95 * error(q4_0(matrix), matrix)


@pytest.mark.parametrize(("degrees", "limit"), [(3, 1.8), (5, 1.5), (100, 1.3)])
def test_eight_bits_are_near_q8_0_with_a_quarter_of_its_scales(
    degrees: int, limit: float, library: NativeLibrary
) -> None:
    values = np.random.default_rng(4).standard_t(degrees, (256, 1024)).astype(np.float32) * 0.02
    matrix = widen(to_bfloat16(values, "F32"))
    rows = read_rows(pack(library, "int8", matrix), "int8", 256, 1024)
    assert error(restore(rows, "int8", 1024), matrix) < limit * error(q8_0(matrix), matrix)
