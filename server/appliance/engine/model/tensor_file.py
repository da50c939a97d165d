"""Locates a tensor's bytes in a safetensors file, for runners to map."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

# Bytes of an element, by safetensors' names of the types that a runner can compute with.
ELEMENT_SIZES = {"F32": 4, "F16": 2, "BF16": 2}
QUANTIZED_SIZES = {"I8": 1, "U8": 1}  # see quantized.py


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorLocation:
    """One stored tensor: row-major, little-endian, in bytes [start, end) of the file at `path`.

    `start` and `end` count from the beginning of the file, header included. The code that
    builds one has checked that the range is inside the file, that `dtype` is a key of
    ELEMENT_SIZES (or, of a quantized layer, of QUANTIZED_SIZES) and that `end - start` is
    `size_bytes`.
    """

    path: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def num_elements(self) -> int:
        return prod(self.shape)

    @property
    def size_bytes(self) -> int:
        return self.num_elements * (ELEMENT_SIZES | QUANTIZED_SIZES)[self.dtype]
