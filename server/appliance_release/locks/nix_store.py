"""Queries and fills the Nix store through its own commands."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from appliance.errors import ReleaseError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class StorePath:
    """A valid path of the store as its database knows it."""

    path: str
    nar_sha256: str
    nar_bytes: int
    references: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NixStore:
    """The store that Nix's own settings lead to; `program` is its nix-store."""

    program: str

    @classmethod
    def find(cls, warn: Callable[[str], None] | None = None) -> NixStore | None:
        """Returns None where Nix is not installed or does not work; `warn` gets the reason."""
        program = shutil.which("nix-store")
        if program is None:
            return None
        store = cls(program)
        try:
            store.folder()
        except ReleaseError as error:
            if warn is not None:
                warn(f"Nix is here but does not work, so it is left out: {error.message}")
            return None
        return store

    def fixed_path(self, name: str, sha256: str) -> str:
        """Returns the store path of a single file of this name and hash."""
        return self._run("--print-fixed-path", "sha256", sha256, name).strip()

    def is_valid(self, path: str) -> bool:
        return self._call("--check-validity", path).returncode == 0

    def add_file(self, path: Path) -> str:
        """Copies a file into the store, in pieces; returns its store path."""
        return self._run("--add-fixed", "sha256", str(path)).strip()

    def folder(self) -> Path:
        """Returns the folder of the store: /nix/store, on nearly every machine."""
        return Path(self.fixed_path("a", "0" * 64)).parent

    def top_path(self, path: Path) -> str | None:
        """Returns the store path that `path` is, links to or is in; None if there is none."""
        folder = self.folder()
        resolved = path.resolve()
        if not resolved.is_relative_to(folder) or resolved == folder:
            return None
        return str(folder / resolved.relative_to(folder).parts[0])

    def name_of(self, path: Path) -> str:
        """Returns a file's name; that of a store path without its digest."""
        top = self.top_path(path)
        return path.resolve().name if top is None else Path(top).name[33:]

    def closure(self, path: str) -> list[StorePath]:
        """Lists `path` and every path it refers to, sorted."""
        paths = self._run("--query", "--requisites", path).split()
        lines = iter(self._run("--dump-db", *sorted(paths)).splitlines())
        return [_registration(line, lines) for line in lines]

    def export(self, paths: Sequence[str], cache: Path, key: Path | None) -> None:
        """Writes a binary cache of these paths and their closure; signs it if there is a key."""
        url = f"file://{quote(str(cache.resolve()))}?compression=zstd"
        url += f"&secret-key={quote(str(key.resolve()))}" if key is not None else ""
        self._copy("--to", url, *paths)

    def import_from(self, cache: Path, paths: Sequence[str]) -> None:
        """Imports from such a folder. Nix checks no signature: the caller has verified it."""
        url = f"file://{quote(str(cache.resolve()))}"
        self._copy("--no-check-sigs", "--from", url, *paths)

    def keep(self, path: str, root: Path) -> None:
        """Makes a link that keeps the path from the garbage collector."""
        root.parent.mkdir(parents=True, exist_ok=True)
        self._run("--realise", path, "--add-root", str(root), "--indirect")

    def _copy(self, *arguments: str) -> None:
        nix = str(Path(self.program).with_name("nix"))
        command = [nix, "--extra-experimental-features", "nix-command", "copy", *arguments]
        run = call([*command, "--option", "substituters", ""])
        if run.returncode != 0:
            raise ReleaseError(f"nix copy failed: {run.stderr.strip()}")

    def _run(self, *arguments: str) -> str:
        run = self._call(*arguments)
        if run.returncode != 0:
            raise ReleaseError(f"nix-store {arguments[0]} failed: {run.stderr.strip()}")
        return run.stdout

    def _call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return call([self.program, *arguments])


def _registration(path: str, lines: Iterator[str]) -> StorePath:
    """Parses the lines of one path: hash, size, deriver, number of references, references."""
    nar_sha256, nar_bytes, _, num_references = (next(lines) for _ in range(4))
    references = tuple(next(lines) for _ in range(int(num_references)))
    return StorePath(
        path=path, nar_sha256=nar_sha256, nar_bytes=int(nar_bytes), references=references
    )


def call(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    except OSError as error:
        raise ReleaseError(f"{command[0]} cannot be run: {error.strerror}.") from None
