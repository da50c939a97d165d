"""A copy of this repository with what git would take of it, as Flox and flakes see it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.nix.local_nix import REPOSITORY


def copy_tree(target: Path) -> Path:
    """Tracked files and new ones that git does not ignore, without the history."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    for name in filter(None, listed.stdout.split("\0")):
        source = REPOSITORY / name
        if source.exists():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target / name)
    return target
