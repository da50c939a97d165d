"""Finds a model's weight files and every tensor in them, and compares them with what must be."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from appliance.engine.model.tensor_file import ELEMENT_SIZES, QUANTIZED_SIZES, TensorLocation
from appliance.errors import ModelRefused
from appliance.models.directory.json_file import read_json_object
from appliance.models.directory.safetensors_header import StoredTensor, read_header

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from pathlib import Path

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
MAX_INDEX_BYTES = 64_000_000
MAX_SHARDS = 1000
PICKLE_SUFFIXES = frozenset({".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt"})

DTYPE_NAMES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}

_SHARD_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,200}\.safetensors")

# Buffers that older files carry and every runner computes itself. They are left out of the tensors,
# whatever their dtype, and may be missing although an index lists them.
_BUFFER = re.compile(
    r"(^|\.)(rotary_emb\.inv_freq|attn\.(masked_)?bias|attention\.(masked_)?bias|position_ids)$"
)


@dataclass(frozen=True, slots=True)
class _Placed:
    """A stored tensor and the file it is stored in."""

    path: Path
    stored: StoredTensor


def find_weight_files(directory: Path, names: Collection[str]) -> tuple[Path, ...]:
    """The safetensors files that hold the model; pickle files beside them are never opened."""
    if INDEX_FILE in names:
        shards = sorted(set(read_weight_map(directory).values()))
        _check_presence(shards, names)
        if SINGLE_FILE in names and SINGLE_FILE not in shards:
            raise ModelRefused(
                f"{SINGLE_FILE} and {INDEX_FILE} describe two different sets of weights."
                " Remove the one that is not meant."
            )
        return tuple(directory / shard for shard in shards)
    if SINGLE_FILE in names:
        return (directory / SINGLE_FILE,)
    raise _weights_absent(names)


def _weights_absent(names: Collection[str]) -> ModelRefused:
    def ending(suffixes: Iterable[str]) -> list[str]:
        return sorted(name for name in names if name.lower().endswith(tuple(suffixes)))

    if shards := ending([".safetensors"]):
        return ModelRefused(
            f"{shards[0]} is neither {SINGLE_FILE} nor named by {INDEX_FILE}, which is missing."
            " Rename the file if it is whole, or fetch the index."
        )
    if pickles := ending(PICKLE_SUFFIXES):
        return ModelRefused(
            f"The weights are pickle files ({pickles[0]}), which can run code when they are read,"
            " so they are never opened. Use the model's safetensors files, or convert it with"
            " transformers: from_pretrained(…), then save_pretrained(…)."
        )
    if others := ending([".gguf", ".ggml", ".onnx", ".h5", ".msgpack", ".npz"]):
        return ModelRefused(
            f"The weights are in a format that is not served here ({others[0]})."
            " Use the model's safetensors files."
        )
    return ModelRefused(f"There are no weights: neither {SINGLE_FILE} nor {INDEX_FILE} is there.")


def read_weight_map(directory: Path) -> dict[str, str]:
    """Tensor name to shard name, as the index says; a shard's name leads nowhere but beside it."""
    index = read_json_object(directory / INDEX_FILE, max_bytes=MAX_INDEX_BYTES)
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ModelRefused(f"{INDEX_FILE} has no weight_map object that names the shards.")
    shards: dict[str, str] = {}
    for tensor, shard in weight_map.items():
        if not isinstance(shard, str):
            raise ModelRefused(f"{INDEX_FILE} maps {tensor[:200]!r} to no file name.")
        shards[tensor] = shard
    distinct = sorted(set(shards.values()))
    if len(distinct) > MAX_SHARDS:
        raise ModelRefused(f"{INDEX_FILE} names {len(distinct)} shards; at most {MAX_SHARDS}.")
    for shard in distinct:
        if not _SHARD_NAME.fullmatch(shard):
            raise ModelRefused(
                f"{INDEX_FILE} names the shard {shard[:200]!r}; shards must be .safetensors files"
                " in the model directory itself, with letters, digits and . _ - in their names."
            )
    return shards


def _check_presence(shards: list[str], names: Collection[str]) -> None:
    absent = [shard for shard in shards if shard not in names]
    if absent:
        raise ModelRefused(
            f"{INDEX_FILE} names {len(absent)} of {len(shards)} shards that are not there, first"
            f" {absent[0]}. The download is incomplete; fetch the model again."
        )


def read_tensors(
    directory: Path, weight_files: tuple[Path, ...], *, is_quantized: bool = False
) -> dict[str, TensorLocation]:
    """Every tensor of a model, in a dtype that a runner can compute with; buffers left out."""
    dtypes = {*ELEMENT_SIZES, *(QUANTIZED_SIZES if is_quantized else ())}
    found: dict[str, _Placed] = {}
    for path in weight_files:
        for name, stored in read_header(path).items():
            if name in found:
                other = found[name].path.name
                raise ModelRefused(f"Tensor {name[:200]!r} is in both {other} and {path.name}.")
            found[name] = _Placed(path, stored)
    if (directory / INDEX_FILE).exists():
        _compare_with_index(found, read_weight_map(directory))
    kept = {name: placed for name, placed in found.items() if not _BUFFER.search(name)}
    if not kept:
        raise ModelRefused("The weight files hold no tensors.")
    return {name: _locate(name, placed, dtypes) for name, placed in kept.items()}


def _compare_with_index(found: Mapping[str, _Placed], weight_map: Mapping[str, str]) -> None:
    for name, shard in weight_map.items():
        placed = found.get(name)
        if (placed is None or placed.path.name != shard) and not _BUFFER.search(name):
            raise ModelRefused(f"{INDEX_FILE} places {name[:200]!r} in {shard}, which lacks it.")
    for name, placed in found.items():
        if name not in weight_map and not _BUFFER.search(name):
            raise ModelRefused(
                f"{placed.path.name} holds {name[:200]!r}, which {INDEX_FILE} does not list."
            )


def _locate(name: str, placed: _Placed, dtypes: Collection[str]) -> TensorLocation:
    stored = placed.stored
    if stored.dtype not in dtypes:
        raise ModelRefused(
            f"Tensor {name[:200]!r} in {placed.path.name} is stored as {stored.dtype}; only"
            f" {', '.join(sorted(ELEMENT_SIZES))} can be computed with. Use an unquantized copy."
        )
    return TensorLocation(
        path=placed.path,
        dtype=stored.dtype,
        shape=stored.shape,
        start=stored.start,
        end=stored.end,
    )


def select_expected(
    tensors: Mapping[str, TensorLocation],
    expected: Mapping[str, tuple[int, ...]],
    *,
    is_tied: bool,
) -> dict[str, TensorLocation]:
    """Exactly the expected tensors. One extra is dropped: the output matrix of a tied model."""
    spare = {"lm_head.weight"} if is_tied else set()
    missing = [name for name in expected if name not in tensors]
    if missing:
        raise ModelRefused(
            f"{_count(missing)} that config.json calls for missing, first {missing[0]}."
            " The download is incomplete, or config.json belongs to another model."
        )
    extra = [name for name in tensors if name not in expected and name not in spare]
    if extra:
        raise ModelRefused(
            f"{_count(extra)} in the weights unknown to this architecture, first"
            f" {extra[0][:200]!r}. config.json belongs to another model."
        )
    for name, shape in expected.items():
        if tensors[name].shape != shape:
            raise ModelRefused(
                f"Tensor {name} in {tensors[name].path.name} has the shape"
                f" {list(tensors[name].shape)}; config.json makes it {list(shape)}."
            )
    return {name: tensors[name] for name in expected}


def select_quantized(
    tensors: Mapping[str, TensorLocation],
    expected: Mapping[str, tuple[str, tuple[int, ...]]],
    kept: Mapping[str, tuple[int, ...]],
) -> dict[str, TensorLocation]:
    """Exactly the tensors of a quantized model, each in the dtype that its layout has."""
    shapes = {**kept, **{name: shape for name, (_, shape) in expected.items()}}
    selected = select_expected(tensors, shapes, is_tied=False)
    for name, location in selected.items():
        allowed = {expected[name][0]} if name in expected else set(ELEMENT_SIZES)
        if location.dtype not in allowed:
            raise ModelRefused(
                f"Tensor {name} in {location.path.name} is stored as {location.dtype}; in a"
                f" quantized model it must be {' or '.join(sorted(allowed))}. Quantize it again."
            )
    return selected


def _count(names: list[str]) -> str:
    return "1 tensor is" if len(names) == 1 else f"{len(names)} tensors are"


def stored_dtype(tensors: Mapping[str, TensorLocation]) -> str:
    """The dtype that most bytes are stored in, by torch's name; quantized layers aside."""
    sizes: Counter[str] = Counter()
    for location in tensors.values():
        if location.dtype in DTYPE_NAMES:
            sizes[location.dtype] += location.size_bytes
    return DTYPE_NAMES[max(sorted(sizes), key=lambda dtype: sizes[dtype])]
