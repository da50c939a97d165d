"""Chooses a model's arithmetic: as stored where the device is fast at it, else float32."""

from __future__ import annotations

from pathlib import Path

# How Linux names the instructions: x86 dot products and tiles, and Arm's.
_BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}


def choose_dtype(requested: str, stored: str, device: str) -> str:
    """Choose the arithmetic for `requested`; "auto" is as stored, unless a CPU is slow at it."""
    if requested != "auto":
        return requested
    if not device.startswith("cpu") or stored == "float32":
        return stored
    if stored == "bfloat16" and has_fast_bfloat16(read_cpu_description()):
        return stored
    return "float32"


def has_fast_bfloat16(cpu_description: str) -> bool:
    """Return True if /proc/cpuinfo names bfloat16 products in hardware."""
    return any(
        _BFLOAT16_FLAGS & set(line.split())
        for line in cpu_description.splitlines()
        if line.startswith(("flags", "Features"))
    )


def read_cpu_description(path: Path = Path("/proc/cpuinfo")) -> str:
    """Read the kernel's description of the CPU; empty where there is no such file (macOS)."""
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
