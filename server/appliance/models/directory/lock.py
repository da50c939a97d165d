"""Verifies the files of a model against the hashes pinned in its model.lock.json."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from appliance.errors import ModelRefused
from appliance.models.directory.inventory import MAX_SMALL_JSON_BYTES
from appliance.models.directory.json_file import JsonObject, read_shallow_json_object, unreadable
from appliance.models.hashing import is_sha256

if TYPE_CHECKING:
    from pathlib import Path

    from appliance.models.directory.inventory import Inventory
    from appliance.models.hashing import FileHasher

LOCK_FILE = "model.lock.json"


@dataclass(frozen=True, slots=True)
class _Pin:
    sha256: str
    size_bytes: int


def verify_lock(inventory: Inventory, hasher: FileHasher) -> bool:
    """True when a lock, in the directory or beside it, pins every file; False without a lock.

    A pinned file must be there and be the same; a file that would be read must be pinned.
    """
    path = find_lock(inventory.directory)
    if path is None:
        return False
    pins = _parse_pins(read_shallow_json_object(path, max_bytes=MAX_SMALL_JSON_BYTES))
    for file in (*inventory.files.values(), *inventory.weight_files):
        if file.name not in pins:
            raise ModelRefused(
                f"{file.name} is not in {path}, which pins this model. Remove the file or renew"
                " the lock."
            )
    paths = [inventory.directory / name for name in pins]
    for file in paths:  # all sizes before the first hash: cheap, and it finds cut downloads
        _check_size(file, pins[file.name].size_bytes)
    found = hasher.hash_files(paths)
    for file in paths:
        if found[file] != pins[file.name].sha256:
            raise _mismatch(file, f"sha256 {found[file]}", f"sha256 {pins[file.name].sha256}")
    return True


def find_lock(directory: Path) -> Path | None:
    """In the directory, or beside it."""
    for path in (directory / LOCK_FILE, directory.absolute().parent / LOCK_FILE):
        if path.is_symlink() or path.exists():
            return path
    return None


def _parse_pins(lock: JsonObject) -> dict[str, _Pin]:
    entries = lock.get("files")
    if not isinstance(entries, dict) or not entries:
        raise ModelRefused(f"{LOCK_FILE} has no files object that pins the model's files.")
    return {name: _parse_pin(name, entry) for name, entry in entries.items()}


def _parse_pin(name: str, entry: object) -> _Pin:
    if name in {"", ".", ".."} or not set(name).isdisjoint("/\\\0"):
        raise ModelRefused(f"{LOCK_FILE} pins {name[:200]!r}, which is not a plain file name.")
    sha256 = entry.get("sha256") if isinstance(entry, dict) else None
    size = entry.get("size") if isinstance(entry, dict) else None
    if not is_sha256(sha256) or type(size) is not int:
        raise ModelRefused(
            f"{LOCK_FILE} must pin {name[:200]} with sha256 (64 small hex digits) and size (bytes)."
        )
    return _Pin(sha256, size)


def _check_size(path: Path, size_bytes: int) -> None:
    try:
        found = path.stat().st_size
    except FileNotFoundError:
        raise ModelRefused(
            f"{LOCK_FILE} pins {path.name}, which is not there. Fetch the model again."
        ) from None
    except OSError as error:
        raise unreadable(path, error) from None
    if found != size_bytes:
        raise _mismatch(path, f"{found:,} bytes", f"{size_bytes:,} bytes")


def _mismatch(path: Path, found: str, pinned: str) -> ModelRefused:
    return ModelRefused(
        f"{path.name} is not the file that {LOCK_FILE} pins: it has {found}, the lock says"
        f" {pinned}. Fetch the model again, or renew the lock if the change is meant."
    )
