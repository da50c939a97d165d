"""Reads the header of a safetensors file and refuses one that does not fit its file exactly."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from appliance.errors import ModelRefused
from appliance.models.directory.json_file import parse_json_object, unreadable

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

LENGTH_BYTES = 8
MAX_HEADER_BYTES = 100_000_000  # the limit of the safetensors format
MAX_DIMENSIONS = 8
LFS_PREFIX = b"version "

# Every element type of the format, whether a runner can compute with it or not.
ELEMENT_BITS: Mapping[str, int] = {
    "BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "U32": 32, "I32": 32, "U64": 64, "I64": 64,
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "F16": 16, "BF16": 16, "F32": 32, "F64": 64, "C64": 64,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor as its header describes it, in bytes [start, end) from the file's beginning."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def read_header(path: Path) -> dict[str, StoredTensor]:
    """The tensors of the file in the order of their bytes, which fill it without gap or overlap."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ModelRefused(f"{path.name} is not a regular file.")
        with path.open("rb") as file:
            file_bytes = os.fstat(file.fileno()).st_size
            prefix = file.read(LENGTH_BYTES)
            if prefix == LFS_PREFIX:
                raise ModelRefused(
                    f"{path.name} is a Git LFS pointer, not the file itself. Run git lfs pull in"
                    " the model directory."
                )
            length = int.from_bytes(prefix, "little")
            _check_length(path.name, length, file_bytes)
            content = file.read(length)
    except OSError as error:
        raise unreadable(path, error) from None
    return parse_header(content, file_bytes=file_bytes, name=path.name)


def _check_length(name: str, length: int, file_bytes: int) -> None:
    if file_bytes < LENGTH_BYTES + 2:
        raise ModelRefused(
            f"{name} is {file_bytes} bytes long, too short for a safetensors file;"
            " the download is incomplete."
        )
    if length > MAX_HEADER_BYTES:
        raise ModelRefused(
            f"{name} announces a header of {length:,} bytes; at most {MAX_HEADER_BYTES:,} are"
            " allowed. It is no safetensors file, or it is damaged."
        )
    if length > file_bytes - LENGTH_BYTES:
        raise ModelRefused(
            f"{name} announces a header of {length:,} bytes but is only {file_bytes:,} bytes long;"
            " the download is incomplete."
        )


def parse_header(content: bytes, *, file_bytes: int, name: str) -> dict[str, StoredTensor]:
    """The tensors that the header `content` lays out over the rest of a file of `file_bytes`."""
    if not content.startswith(b"{"):
        raise ModelRefused(f"The header of {name} does not begin with an opening brace.")
    entries = parse_json_object(content, name=f"The header of {name}")
    _check_metadata(entries.pop("__metadata__", {}), name)
    data_start = LENGTH_BYTES + len(content)
    tensors = {
        tensor: _parse_entry(entry, f"{tensor[:200]!r} in {name}", data_start)
        for tensor, entry in entries.items()
    }
    _check_layout(tensors, data_start, file_bytes, name)
    return dict(sorted(tensors.items(), key=lambda item: (item[1].start, item[1].end)))


def _check_metadata(metadata: object, name: str) -> None:
    is_text = isinstance(metadata, dict) and all(isinstance(v, str) for v in metadata.values())
    if not is_text:
        raise ModelRefused(f"The header of {name} has __metadata__ that maps to more than strings.")


def _parse_entry(entry: object, what: str, data_start: int) -> StoredTensor:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise ModelRefused(f"Tensor {what} must be described by dtype, shape and data_offsets.")
    dtype, offsets = entry["dtype"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in ELEMENT_BITS:
        raise ModelRefused(f"Tensor {what} has the unknown dtype {str(dtype)[:40]!r}.")
    shape = _parse_shape(entry["shape"], what)
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(_is_count, offsets)):
        raise ModelRefused(f"Tensor {what} has data_offsets that are not two counts of bytes.")
    start, end = offsets
    if end < start:
        raise ModelRefused(f"Tensor {what} ends at byte {end} before it starts at byte {start}.")
    if (end - start) * 8 != prod(shape) * ELEMENT_BITS[dtype]:
        raise ModelRefused(
            f"Tensor {what} takes {end - start:,} bytes, which do not fit {dtype} of shape"
            f" {list(shape)}."
        )
    return StoredTensor(dtype, shape, data_start + start, data_start + end)


def _parse_shape(shape: object, what: str) -> tuple[int, ...]:
    if not isinstance(shape, list) or not all(map(_is_count, shape)):
        raise ModelRefused(f"Tensor {what} has a shape that is not a list of sizes from 0 up.")
    if len(shape) > MAX_DIMENSIONS:
        raise ModelRefused(
            f"Tensor {what} has {len(shape)} dimensions; at most {MAX_DIMENSIONS} are allowed."
        )
    return tuple(shape)


def _is_count(value: object) -> bool:
    """A whole number that a file could hold: not negative, below 2^63, and not true or false."""
    return type(value) is int and 0 <= value < 2**63


def _check_layout(
    tensors: Mapping[str, StoredTensor], data_start: int, file_bytes: int, name: str
) -> None:
    position = data_start
    for tensor, stored in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].end)):
        if stored.end > file_bytes:
            raise ModelRefused(
                f"Tensor {tensor[:200]!r} ends at byte {stored.end:,} of {name}, which is only"
                f" {file_bytes:,} bytes long; the download is incomplete."
            )
        if stored.start != position:
            fault = "overlaps the one before it" if stored.start < position else "leaves a hole"
            raise ModelRefused(f"Tensor {tensor[:200]!r} in {name} {fault}; the file is damaged.")
        position = stored.end
    if position != file_bytes:
        raise ModelRefused(
            f"{name} has {file_bytes - position:,} bytes that belong to no tensor; it is damaged."
        )
