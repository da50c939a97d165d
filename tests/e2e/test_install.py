"""scripts/install.sh: what it installs where torch can be had, and where it cannot."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
PROGRAMS = ("sh", "awk", "uname", "rm", "cat", "grep")

# A virtual environment's Python that notes what pip is asked for, and is offered no torch.
PYTHON = """#!/bin/sh
case "$*" in
--version) echo "Python 3.13.0" ;;
-c*) exit 1 ;;
*torch-cpu.txt*) [ -n "$TORCH_IS_THERE" ] || exit 1 ;;
esac
echo "$*" >>"$(dirname "$0")/../asked"
"""


@dataclass
class Installation:
    """What became of one call of the script."""

    code: int
    said: str
    asked: str
    venv: Path


def install(folder: Path, lock: str, *programs: str, **environ: str) -> Installation:
    tools, venv = folder / "tools", folder / "venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").write_text(PYTHON)
    (venv / "bin" / "python").chmod(0o755)
    tools.mkdir()
    for name in (*PROGRAMS, "dirname", *programs):
        (tools / name).symlink_to(shutil.which(name) or pytest.fail(f"there is no {name}"))
    result = subprocess.run(
        ["sh", "scripts/install.sh", str(venv), f"requirements/{lock}.txt"],
        cwd=REPOSITORY,
        env={"PATH": str(tools), **environ},
        capture_output=True,
        text=True,
        check=False,
    )
    asked = venv / "asked"
    return Installation(
        result.returncode, result.stderr, asked.read_text() if asked.exists() else "", venv
    )


def compiler() -> str:
    return next((name for name in ("cc", "gcc", "clang") if shutil.which(name)), "") or pytest.skip(
        "no C compiler on the PATH"
    )


def test_where_torch_can_be_had_the_whole_lock_is_installed(tmp_path: Path) -> None:
    done = install(tmp_path, "cpu", TORCH_IS_THERE="1")
    assert done.code == 0
    assert "--requirement requirements/cpu.txt" in done.asked
    assert "lean" not in done.asked


def test_without_torch_the_lean_lock_is_taken_and_said(tmp_path: Path) -> None:
    done = install(tmp_path, "cpu", compiler())
    assert done.code == 0, done.said
    assert "Going on without it, as with LEAN=1" in done.said
    assert "--no-deps --requirement requirements/lean.txt" in done.asked
    assert "requirements/cpu.txt" not in done.asked


@pytest.mark.parametrize("is_ci", [False, True])
def test_where_nothing_would_serve_or_be_tested_it_ends_and_says_what_to_do(
    is_ci: bool, tmp_path: Path
) -> None:
    done = install(tmp_path, "cpu", compiler(), CI="true") if is_ci else install(tmp_path, "cpu")
    assert done.code == 1
    assert "make LEAN=1 serve" in done.said
    assert not done.venv.exists(), "the next try may take another Python"


def test_the_lean_lock_brings_setuptools_by_its_hash(tmp_path: Path) -> None:
    done = install(tmp_path, "lean")
    assert done.code == 0, done.said
    pinned = (done.venv / "setuptools.txt").read_text()
    assert pinned.startswith("setuptools==")
    assert "--hash=sha256:" in pinned
    assert pinned.count("==") == 1
