"""Downloads and verifies the files of a model lock for a build or a server."""

from __future__ import annotations

import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from appliance.console.progress import Progress, size_text
from appliance.errors import ReleaseError
from appliance.models.directory.lock import LOCK_FILE
from appliance.models.hashing import FileHasher
from appliance_release.locks.download import Download
from appliance_release.locks.lock_file import write_whole

if TYPE_CHECKING:
    from appliance.console.terminal import Terminal
    from appliance_release.locks.hub import Hub
    from appliance_release.locks.model_lock import ModelLock, PinnedFile
    from appliance_release.locks.nix_store import NixStore

SMALL_BYTES = 16_000_000
NUM_SMALL_DOWNLOADS = 4
SPARE_BYTES = 100_000_000  # left free on the disk for others


class Target(Protocol):
    """A destination of verified files."""

    def has(self, name: str, pin: PinnedFile) -> bool: ...

    def place(self, name: str, pin: PinnedFile, path: Path, *, is_ours: bool) -> None:
        """Takes the verified file at `path`; leaves it there if it is not ours."""

    def needs_bytes(self, missing: ModelLock, parts: Path) -> int:
        """Returns the peak disk space that these files take, on the disk of `parts`."""


@dataclass(frozen=True, slots=True)
class StoreTarget:
    """The Nix store, as the fixed-output derivations of a build would fill it."""

    store: NixStore

    def has(self, name: str, pin: PinnedFile) -> bool:
        return self.store.is_valid(self.store.fixed_path(name, pin.sha256))

    def place(self, name: str, pin: PinnedFile, path: Path, *, is_ours: bool) -> None:
        if not is_ours:
            self._add(name, pin, path)
            return
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            self._add(name, pin, path.rename(Path(folder, name)))

    def _add(self, name: str, pin: PinnedFile, path: Path) -> None:
        added = self.store.add_file(path)
        if added != self.store.fixed_path(name, pin.sha256):
            raise ReleaseError(f"{name} changed while it was added: the store has it as {added}.")

    def needs_bytes(self, missing: ModelLock, parts: Path) -> int:
        """Returns the size in the store and, during its copy, the largest file once more."""
        largest = max(pin.size_bytes for pin in missing.files.values())
        sample = next(iter(missing.files.items()))
        store = Path(self.store.fixed_path(sample[0], sample[1].sha256)).parent
        is_same_disk = not store.is_dir() or store.stat().st_dev == parts.stat().st_dev
        return largest + (missing.total_bytes if is_same_disk else 0)


@dataclass(frozen=True, slots=True)
class FolderTarget:
    """A model directory that `appliance serve --model` can open."""

    folder: Path
    hasher: FileHasher

    def has(self, name: str, pin: PinnedFile) -> bool:
        path = self.folder / name
        if not path.is_file() or path.stat().st_size != pin.size_bytes:
            return False
        return self.hasher.hash_files([path])[path] == pin.sha256

    def place(self, name: str, pin: PinnedFile, path: Path, *, is_ours: bool) -> None:
        if is_ours:
            shutil.move(path, self.folder / name)
        else:
            shutil.copyfile(path, self.folder / name)

    def needs_bytes(self, missing: ModelLock, parts: Path) -> int:
        begun = sum(
            part.stat().st_size
            for name, pin in missing.files.items()
            if (part := parts / part_name(name, pin)).exists()
        )
        return missing.total_bytes - begun

    def finish(self, lock: ModelLock) -> None:
        write_whole(self.folder / LOCK_FILE, lock.render())


@dataclass(frozen=True, slots=True, kw_only=True)
class Prefetch:
    """A run: `source` is the folder of a local lock; `parts` has the unfinished downloads."""

    lock: ModelLock
    hub: Hub
    source: Path | None
    parts: Path
    target: Target
    terminal: Terminal

    def run(self) -> int:
        """Downloads what is missing; returns its size in bytes."""
        missing = self._missing()
        if not missing.files:
            return 0
        self.parts.mkdir(parents=True, exist_ok=True)
        self._check_space(missing)
        progress = Progress(self.terminal, missing.total_bytes)
        small = {name for name, pin in missing.files.items() if pin.size_bytes <= SMALL_BYTES}
        try:
            with ThreadPoolExecutor(NUM_SMALL_DOWNLOADS, thread_name_prefix="fetch") as pool:
                list(pool.map(lambda name: self._bring(name, progress), sorted(small)))
            for name in sorted(missing.files.keys() - small):
                self._bring(name, progress)
        finally:
            progress.finish()
        return missing.total_bytes

    def _missing(self) -> ModelLock:
        with self.terminal.counting("looking for files that are there"):
            missing = {
                name: pin for name, pin in self.lock.files.items() if not self.target.has(name, pin)
            }
        return replace(self.lock, files=missing)

    def _check_space(self, missing: ModelLock) -> None:
        needed = self.target.needs_bytes(missing, self.parts) + SPARE_BYTES
        free = shutil.disk_usage(self.parts).free
        if free < needed:
            raise ReleaseError(
                f"{self.parts} has {size_text(free)} free, and this needs {size_text(needed)}."
                " Free some, or name a folder on another disk with --cache."
            )

    def _bring(self, name: str, progress: Progress) -> None:
        pin = self.lock.files[name]
        if self.source is not None:
            self._copy(self.source / name, name, progress)
        else:
            part = self.parts / part_name(name, pin)
            url = self.hub.file_url(self.lock.repository, self.lock.revision, name)
            download = Download(self.hub, self.lock.repository, url, pin)
            download.fetch(part, lambda num_bytes: progress.add(name, num_bytes))
            self.target.place(name, pin, part, is_ours=True)
        progress.say(f"  {pin.sha256[:12]}  {size_text(pin.size_bytes):>9}  {name}")

    def _copy(self, path: Path, name: str, progress: Progress) -> None:
        """Copies a file from the locked folder if it is unchanged."""
        pin = self.lock.files[name]
        if not path.is_file():
            raise ReleaseError(
                f"{path}, which the lock names as the source of {name}, is not there."
            )
        if FileHasher().hash_files([path])[path] != pin.sha256:
            raise ReleaseError(
                f"{path} is not the file that was locked. If the change is intended, renew the"
                f" lock: appliance lock model {path.parent}"
            )
        self.target.place(name, pin, path, is_ours=False)
        progress.add(name, pin.size_bytes)


def part_name(name: str, pin: PinnedFile) -> str:
    """Names a part file by hash, so that another revision can resume it, and by name."""
    return f"{pin.sha256[:32]}-{name}"
