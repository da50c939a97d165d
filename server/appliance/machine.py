"""Measures what this process may use of the machine: cores and memory, with container limits."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
# Devices that the drivers of NVIDIA, of NVIDIA under WSL, and of AMD create.
ACCELERATOR_DRIVERS = (Path("/dev/nvidiactl"), Path("/dev/dxg"), Path("/dev/kfd"))


def wait_passively() -> None:
    """Let idle OpenMP threads sleep; call this before torch is imported.

    By default they spin, which makes torch many times slower if two processes share the cores.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def available_cores(cgroup: Path = CGROUP) -> int:
    """Return the number of cores this process may use; a CPU quota is rounded down."""
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    quota, _, period = _read(cgroup / "cpu.max").partition(" ")
    if quota.isdigit() and period.isdigit():
        cores = min(cores, int(quota) // int(period))
    return max(cores, 1)


def available_memory_bytes(
    cgroup: Path = CGROUP, meminfo: Path = Path("/proc/meminfo")
) -> int | None:
    """Return the memory that is free for this process, or None if the system does not report it."""
    lines = _read(meminfo).splitlines()
    amounts = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    limit, used = _read(cgroup / "memory.max"), _read(cgroup / "memory.current")
    if limit.isdigit() and used.isdigit():
        amounts.append(max(int(limit) - int(used), 0))
    return min(amounts, default=None)


def process_age_s(stat: Path = Path("/proc/self/stat")) -> float | None:
    """Return the age of this process, or None if the system does not report it."""
    fields = _read(stat).rpartition(")")[2].split()  # from the third on: the second, a name, ends
    if len(fields) < 20 or not hasattr(time, "CLOCK_BOOTTIME"):
        return None
    started_at_s = int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started_at_s


def has_accelerator_driver(drivers: Sequence[Path] = ACCELERATOR_DRIVERS) -> bool:
    """Tell whether torch may find a device; asking torch itself takes a second."""
    return any(path.exists() for path in drivers)


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
