"""Where the benches keep what is large and can be made again: checkpoints, peers, samples."""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "BENCH_CACHE"


def cache_dir(*parts: str) -> Path:
    """A folder outside the repository, made if need be; `BENCH_CACHE` names another."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    root = Path(os.environ.get(VARIABLE) or default / "appliance" / "bench")
    path = root.joinpath(*parts)
    path.mkdir(parents=True, exist_ok=True)
    return path
