"""Makes one signed directory that holds a whole release."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from appliance import __version__
from appliance.console.progress import Progress
from appliance.errors import ReleaseError
from appliance.models.directory.lock import LOCK_FILE
from appliance_release.bundle.manifest import MANIFEST, Manifest, write_manifest
from appliance_release.bundle.signature import check_key, sign
from appliance_release.locks.lock_file import write_whole
from appliance_release.locks.model_lock import ModelLock, read_model_lock, source_folder
from appliance_release.sbom.document import describe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from appliance.console.terminal import Terminal
    from appliance.models.hashing import FileHasher
    from appliance_release.locks.nix_store import NixStore

CACHE = "nix-cache"
MODELS = "models"
FILES = "files"
SBOM = "sbom.json"
# Flox writes these folders itself.
FLOX_LEFTOVERS = {"cache", "run", "log", "lib"}
CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleMaker:
    """The parts of a bundle and the key that signs it."""

    store_paths: Sequence[Path]
    model_locks: Sequence[Path]
    others: Sequence[Path]
    key: Path
    nix_key: Path | None
    store: NixStore | None
    prefetched: Path  # where `appliance prefetch --no-store` puts models
    hasher: FileHasher
    terminal: Terminal

    def make(self, directory: Path) -> Manifest:
        """Makes the bundle. Signs last, so that an unfinished bundle has no signature."""
        if directory.exists() and any(directory.iterdir()):
            raise ReleaseError(f"{directory} is not empty. Name a new folder for the bundle.")
        check_key(self.key)
        tops = self._tops()
        models = [(read_model_lock(path), path) for path in self.model_locks]
        files = [
            (lock, name, self._find(lock, path, name))
            for lock, path in models
            for name in lock.files
        ]
        directory.mkdir(parents=True, exist_ok=True)
        if self.store is not None and tops:
            with self.terminal.counting(f"exporting {len(tops)} store paths and what they need"):
                self.store.export(tops, directory / CACHE, self.nix_key)
        self._copy_models(directory, files)
        for lock, _ in models:
            write_whole(directory / MODELS / lock.name / LOCK_FILE, lock.render())
        for path in self.others:
            _copy_other(path, directory / FILES / path.resolve().name)
        with self.terminal.counting("listing the parts, hashing"):
            self._write_sbom(directory, tops, [lock for lock, _ in models])
            manifest = write_manifest(
                directory,
                version=__version__,
                store_paths=tops,
                models=[lock.name for lock, _ in models],
                hasher=self.hasher,
            )
        sign(directory / MANIFEST, self.key)
        return manifest

    def _tops(self) -> list[str]:
        if self.store_paths and self.store is None:
            raise ReleaseError("There is no Nix here, so no store path can be put into a bundle.")
        found = []
        for path in self.store_paths:
            top = self.store.top_path(path) if self.store is not None else None
            if top is None:
                raise ReleaseError(f"{path} is not in the Nix store. Build it first: nix build.")
            found.append(top)
        return sorted(set(found))

    def _find(self, lock: ModelLock, lock_path: Path, name: str) -> Path:
        """Finds a file of a model in its own folder, among the prefetched, or in the Nix store."""
        pin = lock.files[name]
        folders = [
            source_folder(lock, lock_path),
            self.prefetched / f"{lock.name}-{lock.revision[:12]}",
        ]
        places = [folder / name for folder in folders if folder is not None]
        if self.store is not None:
            places.append(Path(self.store.fixed_path(name, pin.sha256)))
        for place in places:
            if place.is_file() and place.stat().st_size == pin.size_bytes:
                return place
        raise ReleaseError(
            f"{name} of {lock.repository} is not on this machine. Fetch it first:"
            f" appliance prefetch {lock_path}"
        )

    def _copy_models(self, directory: Path, files: Sequence[tuple[ModelLock, str, Path]]) -> None:
        total_bytes = sum(lock.files[name].size_bytes for lock, name, _ in files)
        progress = Progress(self.terminal, total_bytes)
        for lock, name, path in files:
            target = directory / MODELS / lock.name / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with path.open("rb") as source, target.open("wb") as copy:
                while chunk := source.read(CHUNK_BYTES):
                    copy.write(chunk)
                    progress.add(name, len(chunk))
            if self.hasher.hash_files([target])[target] != lock.files[name].sha256:
                raise ReleaseError(f"{path} is not the file that the lock of {lock.name} pins.")
        progress.finish()

    def _write_sbom(self, directory: Path, tops: Sequence[str], locks: Sequence[ModelLock]) -> None:
        parts = [Path(top) for top in tops]
        parts += [directory / MODELS / lock.name for lock in locks]
        if parts:
            text = describe(parts, store=self.store, hasher=self.hasher, timestamp=None)
            write_whole(directory / SBOM, text)


def _copy_other(path: Path, target: Path) -> None:
    if target.exists():
        raise ReleaseError(f"Two of the files to add are called {target.name}; rename one.")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        if path.is_dir():
            shutil.copytree(path, target, symlinks=True, ignore=_leftovers)
        else:
            shutil.copyfile(path, target)
    except OSError as error:
        raise ReleaseError(f"{path} cannot be copied: {error}.") from None


def _leftovers(parent: str, names: list[str]) -> set[str]:
    flox = FLOX_LEFTOVERS if Path(parent).name == ".flox" else set()
    return {".git", "__pycache__", *flox} & set(names)
