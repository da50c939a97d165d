"""What this machine and this installation have, as far as the choice of a runner depends on it."""

from __future__ import annotations

import importlib.util
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from appliance.machine import available_cores, available_memory_bytes, has_accelerator_driver

if TYPE_CHECKING:
    from pathlib import Path

    from appliance.engine.native.kernels.library import NativeLibrary

logger = logging.getLogger(__name__)


class Machine(Protocol):
    """Asked in the order of need: what takes long is asked only where it decides something."""

    @property
    def num_cores(self) -> int: ...

    @property
    def cache_dir(self) -> Path | None: ...

    def free_memory_bytes(self) -> int | None:
        """Return the memory that is free for us; None where the system does not say."""

    def cuda_memory_bytes(self) -> int | None:
        """Return what is free on the first CUDA device; None without one. Imports torch."""

    def may_have_accelerator(self) -> bool:
        """Return whether asking torch for a device is worth its import."""

    def is_installed(self, module: str) -> bool: ...

    def kernels(self) -> tuple[NativeLibrary | None, str]:
        """Return the native kernels, or None and the reason why there are none."""


@dataclass(frozen=True, slots=True)
class ThisMachine:
    """The machine that this process runs on. Kernels are kept in `cache_dir`."""

    cache_dir: Path | None = None

    @property
    def num_cores(self) -> int:
        return available_cores()

    def free_memory_bytes(self) -> int | None:
        return available_memory_bytes()

    def cuda_memory_bytes(self) -> int | None:
        import torch

        return torch.cuda.mem_get_info("cuda:0")[0] if torch.cuda.is_available() else None

    def may_have_accelerator(self) -> bool:
        return has_accelerator_driver()

    def is_installed(self, module: str) -> bool:
        return importlib.util.find_spec(module) is not None

    def kernels(self) -> tuple[NativeLibrary | None, str]:
        from appliance.engine.native.kernels.build import load_library

        library, reason = load_library(self.cache_dir)
        if library is not None:
            logger.debug("kernels loaded", extra={"how": reason, "variant": library.variant})
        return library, reason.rstrip(".")
