"""Weights in the layout that the native kernels read, packed once and mapped ever after."""

from __future__ import annotations

import ctypes
import hashlib
import json
import mmap
import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from appliance.engine.kernels.build import SOURCE_DIRECTORY, private_directory
from appliance.engine.kernels.library import WEIGHT_KINDS, NativeLibrary, Weight

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from appliance.engine.model.config import ModelConfig
    from appliance.engine.model.tensor_file import TensorLocation

QUANTIZATIONS = {"none": "bf16", "int8": "int8", "int4": "int4"}
CONVERTED_AT_ONCE = 1 << 20  # elements: what conversion takes besides its result
Words = NDArray[np.uint16]
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Matrix:
    """A matrix of the packed file: tensors below each other, and where they come to lie."""

    tensors: tuple[str, ...]
    kind: str
    n: int
    k: int
    offset: int
    size_bytes: int


class PackedWeights:
    """All matrices of a model, from the cache if another start or process has packed them."""

    def __init__(
        self, library: NativeLibrary, plan: Mapping[str, Matrix], pages: mmap.mmap
    ) -> None:
        self._plan = plan
        self._pages = pages
        self._address = _address(pages)
        self.size_bytes = sum(matrix.size_bytes for matrix in plan.values())

    def weight(self, name: str) -> Weight:
        matrix = self._plan[name]
        data = self._address + matrix.offset
        return Weight(WEIGHT_KINDS[matrix.kind], matrix.n, matrix.k, data)


def plan_matrices(
    library: NativeLibrary, config: ModelConfig, quantization: str
) -> dict[str, Matrix]:
    """Every linear layer by name and where it lies in the packed file.

    The output matrix keeps 8 bits in an int4 model: every token's choice rests on it.
    """
    kind = QUANTIZATIONS[quantization]
    hidden, inner = config.hidden_size, config.intermediate_size
    q_size = config.num_heads * config.head_dim
    qkv_size = q_size + 2 * config.num_kv_heads * config.head_dim
    parts: list[tuple[str, tuple[str, ...], str, int, int]] = []
    for index in range(config.num_layers):
        prefix = f"model.layers.{index}"
        qkv = tuple(f"{prefix}.self_attn.{name}_proj" for name in "qkv")
        gate_up = tuple(f"{prefix}.mlp.{name}_proj" for name in ("gate", "up"))
        parts += [
            (f"{index}.qkv", qkv, kind, qkv_size, hidden),
            (f"{index}.out", (f"{prefix}.self_attn.o_proj",), kind, hidden, q_size),
            (f"{index}.gate_up", gate_up, kind, 2 * inner, hidden),
            (f"{index}.down", (f"{prefix}.mlp.down_proj",), kind, hidden, inner),
        ]
    head = "model.embed_tokens" if config.is_tied else "lm_head"
    parts.append(("head", (head,), "int8" if kind == "int4" else kind, config.vocab_size, hidden))
    plan: dict[str, Matrix] = {}
    offset = 0
    for name, tensors, kind_, n, k in parts:
        size = library.weight_size(WEIGHT_KINDS[kind_], n, k)
        plan[name] = Matrix(tensors, kind_, n, k, offset, size)
        offset += -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
    return plan


def load_packed(  # noqa: PLR0913 - called once, by name
    library: NativeLibrary,
    pool: int,
    config: ModelConfig,
    tensors: Mapping[str, TensorLocation],
    *,
    quantization: str,
    cache_dir: Path | None,
    weights_id: str | None = None,
) -> PackedWeights:
    """Map the packed weights; pack them first where they are not in `cache_dir` yet.

    `weights_id` names the contents of the weight files (a digest), so that copies share one packed
    file; without it their paths, sizes and times of change do.
    """
    plan = plan_matrices(library, config, quantization)
    size = max(matrix.offset + matrix.size_bytes for matrix in plan.values())

    def write(pages: mmap.mmap) -> None:
        for matrix in plan.values():
            _pack(library, pool, matrix, tensors, pages)
            if path is not None:  # the page cache has them; here they would only count as ours
                pages.madvise(mmap.MADV_DONTNEED, matrix.offset, matrix.size_bytes)

    path = _find_place(cache_dir, _key(plan, tensors, weights_id))
    if path is None:
        pages = mmap.mmap(-1, size)
        write(pages)
    else:
        if not path.exists() or path.stat().st_size != size:
            _write_whole(path, size, write)
        with path.open("rb") as file:
            pages = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)
    return PackedWeights(library, plan, pages)


def load_vector(tensors: Mapping[str, TensorLocation], name: str) -> Floats:
    """A norm's weight or a bias, in float32."""
    return to_float32(map_tensor(tensors[name]), tensors[name].dtype)


def map_tensor(location: TensorLocation) -> NDArray[np.generic]:
    """The stored tensor without a copy, bfloat16 as 16-bit words."""
    first_page = location.start - location.start % mmap.ALLOCATIONGRANULARITY
    with location.path.open("rb") as file:
        length = location.end - first_page
        pages = mmap.mmap(file.fileno(), length, access=mmap.ACCESS_READ, offset=first_page)
    dtype = {"BF16": "<u2", "F16": "<f2", "F32": "<f4"}[location.dtype]
    values = np.frombuffer(pages, np.uint8, location.size_bytes, location.start - first_page)
    if location.start % np.dtype(dtype).itemsize:
        values = values.copy()  # the format does not promise alignment
    return values.view(dtype).reshape(location.shape)


def to_float32(values: NDArray[np.generic], dtype: str) -> Floats:
    if dtype == "BF16":
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float32)


def to_bfloat16(values: NDArray[np.generic], dtype: str) -> Words:
    """Rounded to nearest, ties to even; what is stored so already is not copied."""
    if dtype == "BF16":
        return values.view(np.uint16)
    flat, words = values.reshape(-1), np.empty(values.size, np.uint16)
    for first in range(0, values.size, CONVERTED_AT_ONCE):
        part = slice(first, first + CONVERTED_AT_ONCE)
        floats = flat[part].astype(np.float32)
        bits = floats.view(np.uint32)
        rounded = (bits + np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1))) >> 16
        words[part] = np.where(np.isnan(floats), 0x7FC0, rounded)
    return words.reshape(values.shape)


def _key(
    plan: Mapping[str, Matrix], tensors: Mapping[str, TensorLocation], weights_id: str | None
) -> str:
    """What the bytes of the packed file depend on: weights, sizes, kinds and the layout's code."""
    files = sorted({tensor.path.resolve() for tensor in tensors.values()})
    stats = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    ranges = {name: (t.path.name, t.dtype, t.start, t.end) for name, t in tensors.items()}
    parts = [
        weights_id or stats,
        sorted(ranges.items()),
        {name: asdict(matrix) for name, matrix in plan.items()},
        [path.read_text("utf-8") for path in sorted(SOURCE_DIRECTORY.glob("linear*.h"))],
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _find_place(cache_dir: Path | None, key: str) -> Path | None:
    directory = private_directory(cache_dir, "packed")
    return None if directory is None else directory / f"{key}.weights"


def _write_whole(path: Path, size: int, write: Callable[[mmap.mmap], None]) -> None:
    """All or nothing: others see the file only when complete; the last of two writers wins."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".packing-")
    try:
        os.truncate(descriptor, size)
        with mmap.mmap(descriptor, size) as pages:
            write(pages)
        os.fsync(descriptor)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)


def _pack(
    library: NativeLibrary,
    pool: int,
    matrix: Matrix,
    tensors: Mapping[str, TensorLocation],
    pages: mmap.mmap,
) -> None:
    locations = [tensors[f"{name}.weight"] for name in matrix.tensors]
    parts = [to_bfloat16(map_tensor(location), location.dtype) for location in locations]
    words = parts[0] if len(parts) == 1 else np.concatenate(parts)
    weight = Weight(WEIGHT_KINDS[matrix.kind], matrix.n, matrix.k, None)
    begin = _address(pages) + matrix.offset
    library.pack_weight(pool, ctypes.byref(weight), begin, words.ctypes.data)


def _address(pages: mmap.mmap) -> int:
    return np.frombuffer(pages, np.uint8, 1).ctypes.data
