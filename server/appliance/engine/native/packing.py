"""Packs weights into the layout that the native kernels read."""

from __future__ import annotations

import ctypes
import hashlib
import json
import mmap
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from appliance.engine.model.quantized import kind_of, parts_of
from appliance.engine.native.kernels.build import SOURCE_DIRECTORY
from appliance.engine.native.kernels.library import WEIGHT_KINDS, NativeLibrary, Weight
from appliance.engine.native.packed_files import open_packed
from appliance.engine.native.stored_tensors import map_tensor, to_bfloat16
from appliance.engine.native.tiles import read_rows, write_tiles
from appliance.errors import ModelRefused

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from appliance.engine.model.config import ModelConfig
    from appliance.engine.model.tensor_file import TensorLocation
    from appliance.engine.native.packed_files import Settle


# Code that decides the bytes of a packed matrix: layout, rounding and order.
LAYOUT_SOURCES = ("floats.h", "linear.h", "linear_layout.h", "linear_pack.inc", "../tiles.py")

MAX_SIDE = 1 << 24  # of a matrix: beyond it the kernels' 32-bit indices end; no model is near it


@dataclass(frozen=True, slots=True)
class Matrix:
    """A matrix of the packed file: tensors below each other, at an offset."""

    tensors: tuple[str, ...]
    kind: str
    n: int
    k: int
    offset: int
    size_bytes: int
    is_stored: bool  # quantized already


class PackedWeights:
    """Holds all matrices of a model, from the cache if they were packed before."""

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
    library: NativeLibrary,
    config: ModelConfig,
    quantization: str,
    *,
    is_stored: bool = False,
) -> dict[str, Matrix]:
    """Assign every linear layer, by name, an offset in the packed file."""
    hidden, inner = config.hidden_size, config.intermediate_size
    q_size = config.num_heads * config.head_dim
    qkv_size = q_size + 2 * config.num_kv_heads * config.head_dim
    parts: list[tuple[str, tuple[str, ...], int, int]] = []
    for index in range(config.num_layers):
        prefix = f"model.layers.{index}"
        qkv = tuple(f"{prefix}.self_attn.{name}_proj" for name in "qkv")
        gate_up = tuple(f"{prefix}.mlp.{name}_proj" for name in ("gate", "up"))
        parts += [
            (f"{index}.qkv", qkv, qkv_size, hidden),
            (f"{index}.out", (f"{prefix}.self_attn.o_proj",), hidden, q_size),
            (f"{index}.gate_up", gate_up, 2 * inner, hidden),
            (f"{index}.down", (f"{prefix}.mlp.down_proj",), hidden, inner),
        ]
    head = "model.embed_tokens" if config.is_tied and not is_stored else "lm_head"
    parts.append(("head", (head,), config.vocab_size, hidden))
    plan: dict[str, Matrix] = {}
    offset = 0
    for name, tensors, n, k in parts:
        if max(n, k) > MAX_SIDE:
            raise ModelRefused(
                f"config.json makes {tensors[0]} and its neighbours {n} by {k}; the native"
                f" engine computes with at most {MAX_SIDE} a side. Use --engine torch."
            )
        layer = "lm_head" if name == "head" else name
        kind = "bf16" if quantization == "none" else kind_of(layer, quantization)
        size = library.weight_size(WEIGHT_KINDS[kind], n, k)
        plan[name] = Matrix(tensors, kind, n, k, offset, size, is_stored)
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
    is_stored = "lm_head.scales" in tensors
    plan = plan_matrices(library, config, quantization, is_stored=is_stored)
    size = max(matrix.offset + matrix.size_bytes for matrix in plan.values())

    def write(pages: mmap.mmap, settle: Settle) -> None:
        for matrix in plan.values():
            _pack(library, pool, matrix, tensors, pages)
            settle(matrix.offset, matrix.size_bytes)

    pages = open_packed(cache_dir, _key(plan, tensors, weights_id), size, write)
    return PackedWeights(library, plan, pages)


def _key(
    plan: Mapping[str, Matrix], tensors: Mapping[str, TensorLocation], weights_id: str | None
) -> str:
    """Hash all that the packed bytes depend on: weights, sizes, kinds, the layout's code."""
    files = sorted({tensor.path.resolve() for tensor in tensors.values()})
    stats = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    ranges = {name: (t.path.name, t.dtype, t.start, t.end) for name, t in tensors.items()}
    parts = [
        weights_id or stats,
        sorted(ranges.items()),
        {name: asdict(matrix) for name, matrix in plan.items()},
        [(SOURCE_DIRECTORY / name).read_text("utf-8") for name in LAYOUT_SOURCES],
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def quantize_rows(
    library: NativeLibrary, pool: int, kind: str, stored: TensorLocation
) -> dict[str, NDArray[np.generic]]:
    """Convert a stored matrix to the parts that a quantized model keeps of it."""
    n, k = stored.shape
    words = to_bfloat16(map_tensor(stored), stored.dtype)
    with mmap.mmap(-1, library.weight_size(WEIGHT_KINDS[kind], n, k)) as pages:
        weight = Weight(WEIGHT_KINDS[kind], n, k, None)
        library.pack_weight(pool, ctypes.byref(weight), _address(pages), words.ctypes.data)
        tiles = np.frombuffer(pages, np.uint8)
        rows = {name: part.copy() for name, part in read_rows(tiles, kind, n, k).items()}
        del tiles  # a map with views cannot be closed
        return rows


def _pack(
    library: NativeLibrary,
    pool: int,
    matrix: Matrix,
    tensors: Mapping[str, TensorLocation],
    pages: mmap.mmap,
) -> None:
    if matrix.is_stored:
        _arrange(matrix, tensors, pages)
        return
    locations = [tensors[f"{name}.weight"] for name in matrix.tensors]
    parts = [to_bfloat16(map_tensor(location), location.dtype) for location in locations]
    words = parts[0] if len(parts) == 1 else np.concatenate(parts)
    weight = Weight(WEIGHT_KINDS[matrix.kind], matrix.n, matrix.k, None)
    begin = _address(pages) + matrix.offset
    library.pack_weight(pool, ctypes.byref(weight), begin, words.ctypes.data)


def _arrange(matrix: Matrix, tensors: Mapping[str, TensorLocation], pages: mmap.mmap) -> None:
    """Reorder a matrix that was quantized before; its values stay."""
    names = parts_of(matrix.kind, matrix.n, matrix.k)
    stored = {
        part: [map_tensor(tensors[f"{name}.{part}"]) for name in matrix.tensors] for part in names
    }
    rows = {part: np.concatenate(arrays) for part, arrays in stored.items()}
    tiles = np.frombuffer(pages, np.uint8, matrix.size_bytes, matrix.offset)
    write_tiles(rows, matrix.kind, matrix.n, matrix.k, tiles)


def _address(pages: mmap.mmap) -> int:
    return np.frombuffer(pages, np.uint8, 1).ctypes.data
