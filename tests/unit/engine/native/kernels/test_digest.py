"""Every variant of the kernels computes the same bits, on any machine: those of one digest."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest

from appliance.engine.native.kernels.build import (
    SOURCE_DIRECTORY,
    build,
    find_compiler,
    load_library,
)
from appliance.engine.native.kernels.library import VARIANTS
from tests.kernel_cache import KERNEL_CACHE

# Of 700 lines about products, packed weights and forward passes. It changes when the arithmetic
# does, which is a change that users notice: answers get other bits.
EXPECTED = "20f534d7349bcd1225fe86691bc6980f6b0937e4a65815179433f46f08b002bd"
PROGRAM = Path(__file__).with_name("digest.c")
CROSS_TOOLS = ("aarch64-linux-gnu-gcc", "qemu-aarch64")
ARM_ROOT = Path("/usr/aarch64-linux-gnu")


def link(compiler: Path, library: Path, target: Path) -> None:
    flags = ["-std=gnu11", "-O1", "-ffp-contract=off", f"-I{SOURCE_DIRECTORY}"]
    rpath = f"-Wl,-rpath,{library.parent}"
    subprocess.run([compiler, *flags, PROGRAM, library, rpath, "-o", target], check=True)


def digests(*command: Path | str) -> dict[str, str]:
    """By variant: the hash of its lines."""
    lines: dict[str, list[str]] = defaultdict(list)
    output = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout
    for line in output.splitlines():
        variant, _, rest = line.partition(" ")
        lines[variant].append(rest)
    return {
        variant: hashlib.sha256("\n".join(found).encode()).hexdigest()
        for variant, found in lines.items()
    }


def test_every_variant_of_this_machine_computes_the_expected_bits(tmp_path: Path) -> None:
    compiler = find_compiler()
    library = load_library(KERNEL_CACHE).library
    if compiler is None or library is None:
        pytest.skip("there is no C compiler")
    link(compiler, library.path, tmp_path / "digest")
    found = digests(tmp_path / "digest")
    best = library.variant
    here = [name for name in VARIANTS if library.choose_variant(name)]
    library.choose_variant(best)
    assert found == dict.fromkeys(here, EXPECTED)


@pytest.mark.slow
def test_an_arm_processor_computes_the_expected_bits(tmp_path: Path) -> None:
    """In an emulator, which is exact about arithmetic and tells nothing about speed."""
    missing = [tool for tool in CROSS_TOOLS if shutil.which(tool) is None]
    if missing:
        assert os.environ.get("CI") != "true", f"install {missing}"
        pytest.skip(f"not installed: {missing}")
    compiler = Path(shutil.which(CROSS_TOOLS[0]) or "")
    build(compiler, tmp_path / "libkernels.so", extra_flags=["-Werror"])
    link(compiler, tmp_path / "libkernels.so", tmp_path / "digest")
    for cpu in ("max", "cortex-a72"):  # the second has no integer dot product
        found = digests("qemu-aarch64", "-cpu", cpu, "-L", str(ARM_ROOT), tmp_path / "digest")
        assert found == {"scalar": EXPECTED, "neon": EXPECTED}, cpu
