"""Reads, makes and writes model locks: repository, revision, size and SHA-256 of each file."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.errors import ReleaseError
from appliance.models.directory.inventory import take_inventory
from appliance.models.hashing import is_sha256
from appliance_release.locks.lock_file import LOCK_VERSION, read_object, render

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from appliance.models.directory.json_file import JsonObject
    from appliance.models.hashing import FileHasher

NO_LICENSE = "NOASSERTION"  # SPDX's word for unknown
# `flox publish` uploads a store path in one request, and object stores take 5 GB in one.
MAX_FILE_BYTES = 5_000_000_000

REPOSITORY_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
MODEL_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
REVISION = re.compile(r"[0-9a-f]{40}")
# Also valid in a Nix store path; without folders.
FILE_NAME = re.compile(r"[A-Za-z0-9_][\w.+-]{0,150}", re.ASCII)

# Beside the weights; tokenizer.model is sentencepiece's, which is data. Pickles never.
SUFFIXES = (".json", ".jinja", ".model", ".txt")
DOCUMENTS = re.compile(r"(LICEN[CS]E|NOTICE|USE_POLICY)[\w.-]*|README\.md", re.ASCII)
_OTHER_INDEX = re.compile(r".*\.(bin|msgpack|h5|pt|pth)\.index\.json")
_OURS = frozenset({"model.lock.json"})


@dataclass(frozen=True, slots=True)
class PinnedFile:
    sha256: str
    size_bytes: int


def pin_files(directory: Path, names: Iterable[str], hasher: FileHasher) -> dict[str, PinnedFile]:
    """Hashes files of a directory."""
    paths = {name: directory / name for name in names}
    hashes = hasher.hash_files(list(paths.values()))
    return {name: PinnedFile(hashes[path], path.stat().st_size) for name, path in paths.items()}


def as_json(files: Mapping[str, PinnedFile]) -> dict[str, object]:
    return {
        name: {"sha256": file.sha256, "size": file.size_bytes}
        for name, file in sorted(files.items())
    }


def parse_pinned(name: str, entry: object, source: str) -> PinnedFile:
    """Parses an untrusted entry of `source`, whose name the caller has checked."""
    sha256 = entry.get("sha256") if isinstance(entry, dict) else None
    size = entry.get("size") if isinstance(entry, dict) else None
    if not is_sha256(sha256):
        raise ReleaseError(f"{source} pins {name} without a sha256 of 64 small hex digits.")
    if type(size) is not int or not 0 <= size < 2**50:
        raise ReleaseError(f"{source} pins {name} without its size in bytes.")
    return PinnedFile(sha256, size)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelLock:
    """`source` is the folder a local model comes from, relative to the lock; None: from the Hub."""

    name: str
    repository: str
    revision: str
    license: str
    source: str | None
    files: Mapping[str, PinnedFile]

    @property
    def total_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files.values())

    def render(self) -> str:
        facts = {name: getattr(self, name) for name in _FACTS}
        return render(
            {"lock": LOCK_VERSION, **facts, "source": self.source, "files": as_json(self.files)}
        )


_FACTS = {
    "name": MODEL_NAME,
    "repository": REPOSITORY_NAME,
    "revision": REVISION,
    "license": re.compile(r"[\w.+ ()-]{1,200}", re.ASCII),
}


def read_model_lock(path: Path) -> ModelLock:
    """Reads an untrusted lock: checks every name and hash in it."""
    lock, file = read_object(path), path.name
    if lock.get("lock") != LOCK_VERSION:
        raise ReleaseError(
            f"{file} is not a model lock of version {LOCK_VERSION}. Write one with"
            " `appliance lock model`."
        )
    facts = {name: _fact(lock, name, pattern, file) for name, pattern in _FACTS.items()}
    source = lock.get("source")
    if source is not None and not isinstance(source, str):
        raise ReleaseError(f"{file}: source must be a folder or null, not {source!r}.")
    entries = lock.get("files")
    if not isinstance(entries, dict) or not entries:
        raise ReleaseError(f"{file} has no files object, so it pins nothing.")
    files = {name: _pinned(name, entry, file) for name, entry in entries.items()}
    return ModelLock(**facts, source=source, files=files)


def _fact(lock: JsonObject, name: str, pattern: re.Pattern[str], file: str) -> str:
    value = lock.get(name)
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise ReleaseError(
            f"{file}: {name} is {repr(value)[:80]}; it must match {pattern.pattern}."
        )
    return value


def _pinned(name: str, entry: object, file: str) -> PinnedFile:
    if not FILE_NAME.fullmatch(name):
        raise ReleaseError(f"{file} pins {name[:80]!r}, which is not a plain file name.")
    return parse_pinned(name, entry, file)


def lock_directory(
    directory: Path, *, repository: str, lock_path: Path, hasher: FileHasher
) -> ModelLock:
    """Locks a model in a local folder; its revision is the hash of its pins."""
    inventory = take_inventory(directory)
    inventory.read_object("config")  # refuses a model that wants its own code to run
    weights = {path.name for path in inventory.weight_files}
    names = select_files([path.name for path in directory.iterdir() if path.is_file()], weights)
    files = pin_files(directory, names, hasher)
    return ModelLock(
        name=repository.partition("/")[2],
        repository=repository,
        revision=content_revision(files),
        license=NO_LICENSE,
        source=os.path.relpath(directory.resolve(), lock_path.resolve().parent),
        files=files,
    )


def source_folder(lock: ModelLock, lock_path: Path) -> Path | None:
    """Returns the folder of a local model's files; None if they come from the Hub."""
    if lock.source is None:
        return None
    return Path(os.path.normpath(lock_path.resolve().parent / lock.source))


def select_files(names: list[str], weights: set[str]) -> list[str]:
    """Returns the weights and the other files to lock, sorted."""
    return sorted(name for name in names if name in weights or is_wanted(name))


def is_wanted(name: str) -> bool:
    if name in _OURS or _OTHER_INDEX.fullmatch(name) or not FILE_NAME.fullmatch(name):
        return False
    return name.endswith(SUFFIXES) or DOCUMENTS.fullmatch(name) is not None


def content_revision(files: Mapping[str, PinnedFile]) -> str:
    """Returns 40 digits of what `sha256sum * | LC_ALL=C sort | sha256sum` prints."""
    lines = sorted(f"{file.sha256}  {name}\n" for name, file in files.items())
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:40]


def local_repository(folder: Path) -> str:
    """Names a model after its folder, with dashes for characters that no repository has."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", folder.resolve().name).lstrip("._-")
    return f"local/{name[:96] or 'model'}"


def check_repository(name: str) -> str:
    if not REPOSITORY_NAME.fullmatch(name):
        raise ReleaseError(
            f"{name} is neither a folder that exists nor a repository: those are called ORG/NAME,"
            " with letters, digits and . _ - only."
        )
    return name


def check_sizes(lock: ModelLock, *, is_large_allowed: bool) -> None:
    """Raises ReleaseError for files that publishing would refuse."""
    large = [name for name, file in lock.files.items() if file.size_bytes > MAX_FILE_BYTES]
    if large and not is_large_allowed:
        size = lock.files[large[0]].size_bytes
        raise ReleaseError(
            f"{large[0]} has {size:,} bytes. Files above {MAX_FILE_BYTES:,} cannot be published:"
            " object stores take no more in one piece. Either save the model in smaller shards"
            " (transformers: from_pretrained(…).save_pretrained(DIR, max_shard_size='4GB')) and"
            " lock that folder, or add --allow-large-files: `nix build`, `appliance prefetch` and"
            " bundles take files of any size."
        )
