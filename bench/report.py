"""Writes a bench's figures with what they were measured on: hardware, commit, versions."""

from __future__ import annotations

import json
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from appliance.machine import available_cores

RESULTS = Path(__file__).parent / "results"


def write(name: str, figures: dict[str, object]) -> Path:
    """Store `figures` under bench/results and return the file."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"measured_on": conditions(), **figures}, indent=2) + "\n")
    return path


def conditions() -> dict[str, object]:
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cpu": cpu_name(),
        "cores": available_cores(),
        "python": platform.python_version(),
        "torch": version("torch"),
        "commit": commit(),
    }


def cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def commit() -> str:
    """The commit measured, marked when the tree differs from it; results are not part of it."""
    name = _git("describe", "--always")
    unless_results = ("--", ".", ":!bench/results")
    changes = _git("status", "--porcelain", "--untracked-files=no", *unless_results)
    return f"{name}{'-dirty' if changes else ''}" or "unknown"


def _git(*arguments: str) -> str:
    repository = Path(__file__).parents[1]
    result = subprocess.run(
        ["git", *arguments], capture_output=True, text=True, check=False, cwd=repository
    )
    return result.stdout.strip()
