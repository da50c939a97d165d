"""The native linear layers: their definition in float64; that only k orders a reduction."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

KERNELS = Path(__file__).parents[5] / "server" / "appliance" / "engine" / "native" / "kernels"
BF16, INT8, INT4 = 0, 1, 2
KINDS = [
    pytest.param(BF16, id="bf16"),
    pytest.param(INT8, id="int8"),
    pytest.param(INT4, id="int4"),
]
VARIANTS = ["scalar", "avx2", "avx512"]
# The last is more inputs than a block of any kind, 270 more rows than are multiplied at once.
SIZES = [(288, 288), (100, 33), (33, 100), (2048, 288), (16, 5632), (48, 2048), (40, 8300)]
ROW_COUNTS = [1, 2, 3, 5, 8, 16, 17, 33, 64, 65, 270]
NAN = np.uint32(0x7FC00000)

Floats = npt.NDArray[np.float32]
Bf16 = npt.NDArray[np.uint16]
Bytes = npt.NDArray[np.uint8]


class Weight(ctypes.Structure):
    _fields_ = (
        ("kind", ctypes.c_int32),
        ("n", ctypes.c_int32),
        ("k", ctypes.c_int32),
        ("data", ctypes.c_void_p),
    )


def aligned(size: int) -> Bytes:
    memory = np.zeros(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size]


class Library:
    """The compiled kernels, seen through arrays."""

    def __init__(self, path: Path) -> None:
        self._c = ctypes.CDLL(str(path))
        self._c.weight_size.restype = self._c.activation_size.restype = ctypes.c_size_t
        self._c.linear_variant.restype = ctypes.c_char_p

    def choose(self, variant: str) -> None:
        if not self._c.linear_choose(variant.encode()):
            pytest.skip(f"this CPU has no {variant}")

    def has(self, variant: str) -> bool:
        return bool(self._c.linear_choose(variant.encode()))

    def variant(self) -> str:
        return str(self._c.linear_variant().decode())

    def pack(self, kind: int, weights: Bf16, split: int | None = None) -> tuple[Weight, Bytes]:
        n, k = weights.shape
        packed = aligned(self._c.weight_size(kind, n, k))
        weight = Weight(kind, n, k, packed.ctypes.data)
        weight.memory = packed  # lives as long as what points to it
        tiles = (n + 31) // 32
        for first, end in [(0, tiles)] if split is None else [(split, tiles), (0, split)]:
            self._c.weight_pack(
                ctypes.byref(weight),
                ctypes.c_void_p(packed.ctypes.data),
                ctypes.c_void_p(weights.ctypes.data),
                first,
                end,
            )
        return weight, packed

    def prepare(self, weight: Weight, x: Floats, split: int = 0) -> Bytes:
        rows, k = x.shape
        prepared = aligned(rows * self._c.activation_size(weight.kind, k))
        for first, end in [(0, split), (split, rows)]:
            self._c.linear_prepare(
                weight.kind,
                k,
                ctypes.c_void_p(x.ctypes.data),
                ctypes.c_void_p(prepared.ctypes.data),
                first,
                end,
            )
        return prepared

    def prepare_parts(self, weight: Weight, x: Floats, part: int) -> Bytes:
        """Some inputs of all rows at a time, cut out of the rows."""
        rows, k = x.shape
        prepared = aligned(rows * self._c.activation_size(weight.kind, k))
        for first in range(0, k, part):
            end = min(first + part, k)
            self._c.linear_prepare_part(
                weight.kind,
                k,
                ctypes.c_void_p(x.ctypes.data + 4 * first),
                ctypes.c_int64(k),
                ctypes.c_void_p(prepared.ctypes.data),
                0,
                rows,
                first,
                end,
            )
        return prepared

    def multiply(
        self, weight: Weight, x: Floats, split: int | None = None, extra_columns: int = 0
    ) -> Floats:
        rows = len(x)
        prepared = self.prepare(weight, x, split=rows // 2 if split is not None else 0)
        y = np.full((rows, weight.n + extra_columns), 7.0, np.float32)
        tiles = (weight.n + 31) // 32
        for first, end in [(0, tiles)] if split is None else [(split, tiles), (0, split)]:
            self._c.linear_multiply(
                ctypes.byref(weight),
                ctypes.c_void_p(prepared.ctypes.data),
                ctypes.c_void_p(y.ctypes.data),
                ctypes.c_int64(y.shape[1]),
                rows,
                first,
                end,
            )
        return y


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    path = tmp_path_factory.mktemp("kernels") / "linear.so"
    flags = ["-O3", "-Wall", "-Wextra", "-Werror", "-ffp-contract=off", "-fPIC", "-shared"]
    sources = sorted(str(source) for source in KERNELS.glob("linear*.c"))
    subprocess.run([compiler, *flags, *sources, "-o", str(path), "-lm"], check=True)
    return path


@pytest.fixture
def library(built: Path) -> Iterator[Library]:
    library = Library(built)
    best = library.variant()
    yield library
    library.choose(best)


def random_weights(n: int, k: int, seed: int = 1) -> Bf16:
    values = np.random.default_rng(seed).standard_t(5, (n, k)).astype(np.float32) * 0.02
    return to_bf16(values)


def random_rows(rows: int, k: int, seed: int = 2) -> Floats:
    generator = np.random.default_rng(seed)
    spread = np.exp(generator.normal(0, 1, (1, k)))
    return np.asarray(generator.standard_normal((rows, k)) * spread, np.float32)


def to_bf16(values: Floats) -> Bf16:
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def from_bf16(values: Bf16) -> npt.NDArray[np.float64]:
    return (values.astype(np.uint32) << 16).view(np.float32).astype(np.float64)


def bits(values: Floats) -> npt.NDArray[np.uint32]:
    return np.ascontiguousarray(values).view(np.uint32)


def tile_of(packed: Bytes, n: int) -> Bytes:
    return packed.reshape((n + 31) // 32, -1)


def unpacked(kind: int, packed: Bytes, n: int, k: int) -> npt.NDArray[np.float64]:
    """The weights that the packed bytes stand for, read as the header describes them."""
    tiles = tile_of(packed, n)
    num_groups, num_quads = (k + 127) // 128, (k + 7) // 8 * 2
    size = 65 * 64 if kind == INT8 else 35 * 64
    values = np.zeros((len(tiles), 32, num_groups * 128))
    for g in range(num_groups):
        quads = min(32, num_quads - g * 32)
        group = tiles[:, g * size : (g + 1) * size]
        scales = from_bf16(group[:, :64].copy().view(np.uint16))
        if kind == INT8:
            integers = group[:, 64:].reshape(-1, quads, 32, 4).astype(np.int64) - 128
        else:
            code = group[:, 64:192].reshape(-1, 32, 4).astype(np.int64)
            nibbles = group[:, 192:].reshape(-1, quads // 2, 1, 32, 4)
            both = np.concatenate([nibbles & 15, nibbles >> 4], 2).astype(np.int64)
            sub = (np.arange(quads) // 8)[:, None]
            step, zero = (code & 15)[:, :, sub[:, 0]], (code >> 4)[:, :, sub[:, 0]]
            centred = both.reshape(-1, quads, 32, 4) - zero.transpose(0, 2, 1)[..., None]
            integers = centred * step.transpose(0, 2, 1)[..., None]
        scaled = integers * scales[:, None, :, None]
        values[:, :, g * 128 : g * 128 + quads * 4] = scaled.transpose(0, 2, 1, 3).reshape(
            -1, 32, quads * 4
        )
    return values.reshape(-1, num_groups * 128)[:n, :k]


def reference(kind: int, weights: Bf16, packed: Bytes, x: Floats) -> npt.NDArray[np.float64]:
    """The layer in float64, from inputs rounded as its kind rounds them."""
    n, k = weights.shape
    if kind == BF16:
        return from_bf16(to_bf16(x)) @ from_bf16(weights).T
    rounded = np.zeros(x.shape)
    for first in range(0, k, 128):
        group = x[:, first : first + 128]
        largest = np.abs(group).max(1, keepdims=True)
        steps = np.rint(group * (np.float32(127) / largest))
        rounded[:, first : first + 128] = steps * (largest / np.float32(127)).astype(np.float64)
    return rounded @ unpacked(kind, packed, n, k).T


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("n", "k"), SIZES)
def test_a_layer_is_what_its_definition_says(
    library: Library, variant: str, kind: int, n: int, k: int
) -> None:
    library.choose(variant)
    weights, x = random_weights(n, k), random_rows(3, k)
    weight, packed = library.pack(kind, weights)
    expected = reference(kind, weights, packed, x)
    error = np.abs(library.multiply(weight, x) - expected).max() / np.abs(expected).max()
    assert error < 1e-5 if kind == BF16 else error < 2e-6  # fp32 sums: k links, or one a group


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("n", "k"), [(288, 288), (100, 33), (33, 2048), (64, 5632)])
def test_a_row_has_the_same_bits_among_any_others(
    library: Library, variant: str, kind: int, n: int, k: int
) -> None:
    library.choose(variant)
    weight, _packed = library.pack(kind, random_weights(n, k))
    x = random_rows(max(ROW_COUNTS) if variant != "scalar" else 9, k)
    alone = np.concatenate([library.multiply(weight, row[None]) for row in x])
    for rows in [count for count in ROW_COUNTS if count <= len(x)]:
        for first in {0, len(x) - rows, (len(x) - rows) // 3}:
            among = library.multiply(weight, x[first : first + rows].copy())
            assert np.array_equal(bits(among), bits(alone[first : first + rows]))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_split_of_columns_or_rows_changes_no_bit(
    library: Library, variant: str, kind: int
) -> None:
    library.choose(variant)
    weights, x = random_weights(300, 416), random_rows(5, 416)
    weight, packed = library.pack(kind, weights)
    whole = library.multiply(weight, x)
    for split in [1, 2, 7, 9]:
        assert np.array_equal(library.pack(kind, weights, split)[1], packed)
        assert np.array_equal(bits(library.multiply(weight, x, split)), bits(whole))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("k", [33, 256, 333])
def test_rows_may_be_prepared_in_parts(library: Library, k: int, variant: str, kind: int) -> None:
    library.choose(variant)
    weight, _ = library.pack(kind, random_weights(16, k))
    x = random_rows(5, k)
    whole = library.prepare(weight, x)
    assert whole.any()
    assert library.prepare_parts(weight, x, 128).tobytes() == whole.tobytes()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("n", "k"), SIZES)
@pytest.mark.parametrize("variant", ["avx2", "avx512"])
def test_every_variant_packs_prepares_and_multiplies_to_the_same_bits(
    library: Library, variant: str, kind: int, n: int, k: int
) -> None:
    weights, x = random_weights(n, k), random_rows(9, k)
    results = []
    for name in ["scalar", variant]:
        library.choose(name)
        weight, packed = library.pack(kind, weights)
        results.append((packed, library.prepare(weight, x), bits(library.multiply(weight, x))))
    for ours, theirs in zip(*results, strict=True):
        assert np.array_equal(ours, theirs)


def hostile_values(generator: np.random.Generator, shape: tuple[int, int]) -> Floats:
    """Any bit pattern, crowded towards denormals, cancellation and overflow."""
    exponents = generator.choice([0, 1, 2, 60, 63, 64, 65, 126, 127, 128, 190, 253, 254], shape)
    signs = generator.integers(0, 2, shape) << 31
    patterns = signs | exponents << 23 | generator.integers(0, 1 << 23, shape)
    return np.asarray(patterns, np.uint32).view(np.float32)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("variant", ["avx2", "avx512"])
@pytest.mark.parametrize("special", [False, True], ids=["finite", "with-nan-and-infinity"])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_hostile_values_have_the_same_bits_in_every_variant(
    library: Library, variant: str, kind: int, special: bool
) -> None:
    generator = np.random.default_rng(5)
    for k in [1, 2, 3, 8, 40, 300]:
        for _attempt in range(20):
            x, w = hostile_values(generator, (6, k)), hostile_values(generator, (48, k))
            if special:
                x[1, k // 2], x[2, 0], w[3, 0], w[5, k // 2] = np.nan, np.inf, -np.inf, np.nan
            results = []
            for name in ["scalar", variant]:
                library.choose(name)
                weight, packed = library.pack(kind, (w.view(np.uint32) >> 16).astype(np.uint16))
                results.append((packed, bits(library.multiply(weight, x))))
            for ours, theirs in zip(*results, strict=True):
                assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_what_is_not_finite_is_never_hidden(library: Library, variant: str, kind: int) -> None:
    library.choose(variant)
    weights, x = random_weights(40, 300), random_rows(4, 300)
    weights[7, 200] = 0x7FC1
    x[1, 290], x[2, 3] = np.nan, np.inf
    y = library.multiply(library.pack(kind, weights)[0], x)
    assert np.isfinite(np.delete(y[[0, 3]], 7, 1)).all()
    assert (bits(y[:, 7]) == NAN).all()
    assert (bits(y[1]) == NAN).all()
    assert not np.isfinite(y[2]).any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_zeros_and_denormals_give_zero_and_large_values_stay_finite(
    library: Library, variant: str, kind: int
) -> None:
    library.choose(variant)
    weights, x = random_weights(40, 160), random_rows(4, 160)
    weights[3] = 0
    weights[4] = 0x0042  # denormal in bf16
    x[1], x[2], x[3] = 0, 1e-42, 1e30
    y = library.multiply(library.pack(kind, weights)[0], x)
    assert (y[[1, 2]] == 0).all()
    assert (y[:, [3, 4]] == 0).all()
    assert np.isfinite(y).all()
    assert np.abs(y[3]).max() > 1e28


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_columns_beyond_the_layer_are_left_alone(library: Library, variant: str, kind: int) -> None:
    library.choose(variant)
    weight, _packed = library.pack(kind, random_weights(37, 64))
    y = library.multiply(weight, random_rows(9, 64), extra_columns=20)
    assert (y[:, 37:] == 7).all()


@pytest.mark.parametrize("kind", KINDS)
def test_the_callers_arithmetic_modes_change_no_bit(library: Library, kind: int) -> None:
    libm = ctypes.CDLL("libm.so.6")
    weights, x = random_weights(48, 160), random_rows(5, 160)
    weight, packed = library.pack(kind, weights)
    expected = bits(library.multiply(weight, x))
    libm.fesetround(0x800)  # upwards
    try:
        assert np.array_equal(library.pack(kind, weights)[1], packed)
        assert np.array_equal(bits(library.multiply(weight, x)), expected)
        assert libm.fegetround() == 0x800
    finally:
        libm.fesetround(0)


def test_int8_weights_are_rounded_to_the_nearest_of_255_steps(library: Library) -> None:
    weights = random_weights(64, 512)
    _weight, packed = library.pack(INT8, weights)
    values = from_bf16(weights)
    error = np.abs(unpacked(INT8, packed, 64, 512) - values).reshape(64, 4, 128)
    step = np.abs(values).reshape(64, 4, 128).max(2, keepdims=True) / 127 * (1 + 2**-7)
    assert (error <= step / 2).all()


@pytest.mark.parametrize("degrees", [3, 5, 100], ids=["heavy-tails", "tails", "gaussian"])
def test_int4_is_closer_than_32_weights_with_their_own_scale_of_8_bit_range(
    library: Library, degrees: int
) -> None:
    generator = np.random.default_rng(7)
    weights = to_bf16(generator.standard_t(degrees, (256, 1024)).astype(np.float32) * 0.02)
    values = from_bf16(weights)
    _weight, packed = library.pack(INT4, weights)
    ours = np.square(unpacked(INT4, packed, 256, 1024) - values).mean()
    groups = values.reshape(256, 32, 32)
    extreme = np.take_along_axis(groups, np.abs(groups).argmax(2, keepdims=True), 2)
    scale = (extreme / -8).astype(np.float16).astype(np.float64)  # as 4-bit GGUF files do
    naive = np.clip(np.trunc(groups / scale + 8.5), 0, 15) - 8
    assert ours < 0.85 * np.square(naive * scale - groups).mean()
