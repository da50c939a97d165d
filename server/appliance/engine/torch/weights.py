"""Maps weights as torch tensors, and copies them only to change type or device."""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING

import torch

from appliance.engine.model.tensor_file import ELEMENT_SIZES, TensorLocation

if TYPE_CHECKING:
    from collections.abc import Mapping

_TORCH_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


class Weights:
    """The tensors of one model by name, brought to one device and type as they are asked for."""

    def __init__(
        self, tensors: Mapping[str, TensorLocation], device: torch.device, dtype: torch.dtype
    ) -> None:
        self._tensors = tensors
        self._device = device
        self._dtype = dtype

    def load(self, name: str) -> torch.Tensor:
        """Load a tensor; on a CPU in the stored type it is the page cache: never write to it."""
        return map_tensor(self._tensors[name]).to(self._device, self._dtype)

    def load_optional(self, name: str) -> torch.Tensor | None:
        return self.load(name) if name in self._tensors else None


def map_tensor(location: TensorLocation) -> torch.Tensor:
    """Map the stored tensor without a copy; the mapping lives as long as the tensor."""
    if not location.num_elements:
        return torch.empty(location.shape, dtype=_TORCH_DTYPES[location.dtype])
    # Each tensor has its own mapping, so that a tensor that was cast frees its pages.
    first_page = location.start - location.start % mmap.ALLOCATIONGRANULARITY
    with location.path.open("rb") as file:
        # Copy on write: torch wants a writable buffer, and nothing may reach the file.
        length = location.end - first_page
        pages = mmap.mmap(file.fileno(), length, access=mmap.ACCESS_COPY, offset=first_page)
    offset = location.start - first_page
    if location.start % ELEMENT_SIZES[location.dtype]:
        flat = _copy_unaligned(pages, location, offset)
    else:
        flat = torch.frombuffer(
            pages,
            dtype=_TORCH_DTYPES[location.dtype],
            count=location.num_elements,
            offset=offset,
        )
    return flat.view(location.shape)


def _copy_unaligned(pages: mmap.mmap, location: TensorLocation, offset: int) -> torch.Tensor:
    """Copy a tensor that does not start at a multiple of its element size."""
    count = location.size_bytes
    stored = torch.frombuffer(pages, dtype=torch.uint8, count=count, offset=offset)
    return stored.clone().view(_TORCH_DTYPES[location.dtype])
