"""Writes and verifies the manifest of a bundle: the size and hash of each file."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.errors import ReleaseError
from appliance_release.bundle.signature import problem_with
from appliance_release.locks.lock_file import parse_object, read_bytes, render, write_whole
from appliance_release.locks.model_lock import PinnedFile, as_json, parse_pinned, pin_files

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from appliance.models.hashing import FileHasher

MANIFEST = "bundle.json"
SIGNATURE = f"{MANIFEST}.sig"
VERSION = 1
MAX_MANIFEST_BYTES = 256_000_000
# Relative, without `..` and without what a terminal or a shell could take for something else.
_PLAIN_PATH = re.compile(r"(?!(?:.*/)?\.\.?(?:/|$))[\w.+@=,-]+(?:/[\w.+@=,-]+)*", re.ASCII)
_STORE_PATH = re.compile(r"/[\w./-]+/[0-9a-z]{32}-[\w.+?=-]+", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The contents of a bundle. `store_paths` are the requested ones, without their closure."""

    version: str
    store_paths: tuple[str, ...]
    models: tuple[str, ...]
    files: Mapping[str, PinnedFile]

    def render(self) -> str:
        return render(
            {
                "bundle": VERSION,
                "version": self.version,
                "store_paths": list(self.store_paths),
                "models": list(self.models),
                "files": as_json(self.files),
            }
        )


@dataclass(frozen=True, slots=True)
class Verdict:
    """A manifest, the fault of its signature, and the fault of each file that differs."""

    manifest: Manifest
    signature_problem: str | None
    file_problems: tuple[str, ...]

    @property
    def problems(self) -> list[str]:
        found = [f"{MANIFEST}: {self.signature_problem}"] if self.signature_problem else []
        return [*found, *self.file_problems]


def write_manifest(
    directory: Path,
    *,
    version: str,
    store_paths: Sequence[str],
    models: Sequence[str],
    hasher: FileHasher,
) -> Manifest:
    """Writes the manifest of every file in the directory."""
    names = sorted(set(list_files(directory)) - {MANIFEST, SIGNATURE})
    for name in names:
        if not _PLAIN_PATH.fullmatch(name) or (directory / name).is_symlink():
            raise ReleaseError(f"{name} cannot be in a bundle: it is a link or has an odd name.")
    manifest = Manifest(
        version=version,
        store_paths=tuple(store_paths),
        models=tuple(models),
        files=pin_files(directory, names, hasher),
    )
    write_whole(directory / MANIFEST, manifest.render())
    return manifest


def verify(directory: Path, trusted: Sequence[Path], hasher: FileHasher) -> Verdict:
    """Checks signature and files; raises ReleaseError only if there is no manifest."""
    if not (directory / MANIFEST).is_file():
        raise ReleaseError(f"{directory} is not a bundle: it has no {MANIFEST}.")
    content = read_bytes(directory / MANIFEST, max_bytes=MAX_MANIFEST_BYTES)
    manifest = _parse(content)
    return Verdict(
        manifest,
        problem_with(content, directory / SIGNATURE, trusted),
        tuple(_compare(directory, manifest, hasher)),
    )


def _compare(directory: Path, manifest: Manifest, hasher: FileHasher) -> Iterator[str]:
    found = set(list_files(directory)) - {MANIFEST, SIGNATURE}
    whole = []
    for name, pin in sorted(manifest.files.items()):
        path = directory / name
        if name not in found:
            yield f"{name}: missing"
        elif path.is_symlink() or not path.is_file():  # a pipe would be read for ever
            yield f"{name}: changed (no file)"
        elif path.stat().st_size != pin.size_bytes:
            yield f"{name}: changed (another size)"
        else:
            whole.append(name)
    hashes = hasher.hash_files([directory / name for name in whole])
    for name in whole:
        if hashes[directory / name] != manifest.files[name].sha256:
            yield f"{name}: changed (another SHA-256)"
    yield from (
        f"{name}: extra, not in the manifest" for name in sorted(found - manifest.files.keys())
    )


def list_files(directory: Path) -> Iterator[str]:
    """Lists every file and link below, by relative path; follows no links to folders."""
    for parent, folders, names in os.walk(directory):
        links = [name for name in folders if Path(parent, name).is_symlink()]
        for name in (*names, *links):
            yield Path(parent, name).relative_to(directory).as_posix()


def _parse(content: bytes) -> Manifest:
    """Parses an untrusted manifest; refuses names that lead out of the bundle."""
    found = parse_object(content, MANIFEST)
    if found.get("bundle") != VERSION:
        raise ReleaseError(
            f"{MANIFEST} is not of version {VERSION}: use the appliance that made it."
        )
    files = found.get("files")
    if not isinstance(files, dict):
        raise ReleaseError(f"{MANIFEST} has no files object.")
    return Manifest(
        version=str(found.get("version")),
        store_paths=_texts(found.get("store_paths"), _STORE_PATH),
        models=_texts(found.get("models"), _PLAIN_PATH),
        files={name: _pinned(name, entry) for name, entry in files.items()},
    )


def _texts(value: object, pattern: re.Pattern[str]) -> tuple[str, ...]:
    entries = value if isinstance(value, list) else [None]
    for each in entries:
        if not isinstance(each, str) or not pattern.fullmatch(each):
            raise ReleaseError(f"{MANIFEST} holds {repr(each)[:80]}, which is not a plain path.")
    return tuple(entries)


def _pinned(name: str, entry: object) -> PinnedFile:
    if not _PLAIN_PATH.fullmatch(name):
        raise ReleaseError(f"{MANIFEST} holds {name[:80]!r}, which is not a plain path.")
    return parse_pinned(name, entry, MANIFEST)
