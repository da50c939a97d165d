"""Asks and feeds the Nix store through its own commands, in the few ways that releases need."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.errors import ReleaseError

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class NixStore:
    """The store that Nix's own settings lead to; `program` is its nix-store."""

    program: str

    @classmethod
    def find(cls) -> NixStore | None:
        """None on a machine without Nix."""
        program = shutil.which("nix-store")
        return None if program is None else cls(program)

    def fixed_path(self, name: str, sha256: str) -> str:
        """Where a single file of this name and hash lies, once it is there."""
        return self._run("--print-fixed-path", "sha256", sha256, name).strip()

    def is_valid(self, path: str) -> bool:
        return self._call("--check-validity", path).returncode == 0

    def add_file(self, path: Path) -> str:
        """A copy in the store, by its content and name; reads the file in pieces, not at once."""
        return self._run("--add-fixed", "sha256", str(path)).strip()

    def _run(self, *arguments: str) -> str:
        run = self._call(*arguments)
        if run.returncode != 0:
            raise ReleaseError(f"nix-store {arguments[0]} failed: {run.stderr.strip()}")
        return run.stdout

    def _call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return call([self.program, *arguments])


def call(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    except OSError as error:
        raise ReleaseError(f"{command[0]} cannot be run: {error.strerror}.") from None
