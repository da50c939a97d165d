"""A machine that a test describes: what is installed, and what it has."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from appliance.engine.native.kernels.build import find_compiler, load_library
from appliance.engine.native.kernels.library import NativeLibrary
from tests.kernel_cache import KERNEL_CACHE

EVERYTHING = ("torch", "transformers")


@dataclass(frozen=True, kw_only=True)
class FakeMachine:
    """By default a whole installation with kernels and without a CUDA device."""

    library: NativeLibrary | None = None
    reason: str = "there are no kernels"
    installed: tuple[str, ...] = EVERYTHING
    num_cores: int = 2
    free_bytes: int | None = 8 * 10**9
    cuda_bytes: int | None = None
    has_driver: bool = False
    cache_dir: Path | None = KERNEL_CACHE

    def free_memory_bytes(self) -> int | None:
        return self.free_bytes

    def cuda_memory_bytes(self) -> int | None:
        return self.cuda_bytes

    def may_have_accelerator(self) -> bool:
        return self.has_driver

    def is_installed(self, module: str) -> bool:
        return module in self.installed

    def kernels(self) -> tuple[NativeLibrary | None, str]:
        return self.library, self.reason


def built_library() -> NativeLibrary:
    """Return kernels that were built before, or skip the test where nothing can build them."""
    found = load_library(KERNEL_CACHE)
    if find_compiler() is None:
        pytest.skip(found.reason)
    assert found.library is not None, found.reason
    return found.library
