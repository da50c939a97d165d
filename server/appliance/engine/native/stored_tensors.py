"""Maps a model's stored tensors as arrays, and converts them a piece at a time."""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Mapping

    from appliance.engine.model.tensor_file import TensorLocation

CONVERTED_AT_ONCE = 1 << 20  # elements: what conversion takes besides its result
DTYPES = {"BF16": "<u2", "F16": "<f2", "F32": "<f4", "I8": "i1", "U8": "u1"}
Words = NDArray[np.uint16]
Floats = NDArray[np.float32]


def load_vector(tensors: Mapping[str, TensorLocation], name: str) -> Floats:
    """Load a norm's weight or a bias as float32."""
    return to_float32(map_tensor(tensors[name]), tensors[name].dtype)


def map_tensor(location: TensorLocation) -> NDArray[np.generic]:
    """Map the stored tensor without a copy, bfloat16 as 16-bit words."""
    first_page = location.start - location.start % mmap.ALLOCATIONGRANULARITY
    with location.path.open("rb") as file:
        length = location.end - first_page
        pages = mmap.mmap(file.fileno(), length, access=mmap.ACCESS_READ, offset=first_page)
    dtype = DTYPES[location.dtype]
    values = np.frombuffer(pages, np.uint8, location.size_bytes, location.start - first_page)
    if location.start % np.dtype(dtype).itemsize:
        values = values.copy()  # the format does not promise alignment
    return values.view(dtype).reshape(location.shape)


def to_float32(values: NDArray[np.generic], dtype: str) -> Floats:
    if dtype == "BF16":
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float32)


def to_bfloat16(values: NDArray[np.generic], dtype: str) -> Words:
    """Round to nearest, ties to even; bfloat16 tensors are not copied."""
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
