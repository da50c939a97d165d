"""Hashes files in parallel and remembers the hashes of files that have not changed since."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeGuard

from appliance.errors import ModelRefused

Progress = Callable[[int, int], None]  # bytes done, bytes in all; called from worker threads

CACHE_FILE = "file-hashes.json"
MAX_CACHE_BYTES = 4_000_000
MAX_CACHED_FILES = 2000
MAX_THREADS = 8
REPORT_BYTES = 64 * 2**20
# A file as young as this may change once more within one tick of the file system's clock.
SETTLED_NS = 2_000_000_000


class FileHasher:
    """SHA-256 of files, one caller at a time. With a `cache_dir`, an unchanged file is hashed once
    in its life; without, once in the life of the hasher.

    A file counts as unchanged while path, device, inode, size, mtime and ctime stay: nobody but
    root can set a ctime. A cache that is damaged, or writable by others, is ignored; one that
    cannot be written is done without.
    """

    def __init__(self, cache_dir: Path | None = None, progress: Progress | None = None) -> None:
        self._cache_path = None if cache_dir is None else cache_dir / CACHE_FILE
        self._progress = progress
        self._known: dict[str, str] | None = None

    def hash_files(self, paths: Sequence[Path]) -> dict[Path, str]:
        """Path to hex digest. Raises ModelRefused when a file cannot be read."""
        known = self._load()
        keys = {path: _key(path) for path in paths}
        found = {path: known[key] for path, key in keys.items() if key in known}
        missing = [path for path in dict.fromkeys(paths) if path not in found]
        if missing:
            found.update(self._hash_all(missing))
            unchanged = [path for path in missing if _key(path) == keys[path]]
            known.update({keys[path]: found[path] for path in unchanged})
            self._save({keys[path]: found[path] for path in unchanged if _is_settled(path)})
        return {path: found[path] for path in paths}

    def _hash_all(self, paths: list[Path]) -> dict[Path, str]:
        report = _Report(sum(path.stat().st_size for path in paths), self._progress)
        num_threads = min(MAX_THREADS, len(paths), os.cpu_count() or 1)
        with ThreadPoolExecutor(num_threads, thread_name_prefix="hash") as pool:
            try:
                return dict(zip(paths, pool.map(report.hash_file, paths), strict=True))
            except BaseException:  # Ctrl-C, too: the pool waits for threads that read gigabytes
                report.is_over = True
                raise

    def _load(self) -> dict[str, str]:
        if self._known is None:
            self._known = {} if self._cache_path is None else _read_cache(self._cache_path)
        return self._known

    def _save(self, new: dict[str, str]) -> None:
        if self._cache_path is None or not new:
            return
        entries = _read_cache(self._cache_path) | new
        _write_cache(self._cache_path, dict(list(entries.items())[-MAX_CACHED_FILES:]))


class _Report:
    """Adds up what the threads have read and passes it on now and then."""

    def __init__(self, total_bytes: int, progress: Progress | None) -> None:
        self._total_bytes = total_bytes
        self._progress = progress
        self._done_bytes = 0
        self._lock = threading.Lock()
        self.is_over = False  # nobody wants the hashes any more

    def hash_file(self, path: Path) -> str:
        try:
            with _CountingFile(path, self.add) as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise ModelRefused(f"{path.name} cannot be read: {error.strerror}.") from None

    def add(self, num_bytes: int) -> None:
        if self.is_over:
            raise InterruptedError(errno.EINTR, os.strerror(errno.EINTR))
        with self._lock:
            before = self._done_bytes
            self._done_bytes += num_bytes
            done = self._done_bytes
        is_due = done // REPORT_BYTES > before // REPORT_BYTES or done == self._total_bytes > before
        if self._progress is not None and is_due:
            self._progress(done, self._total_bytes)


class _CountingFile(io.FileIO):
    """An unbuffered file that says how much was read; file_digest brings its own buffer."""

    def __init__(self, path: Path, count: Callable[[int], None]) -> None:
        super().__init__(path, "rb")
        self._count = count

    def readinto(self, buffer: bytearray, /) -> int:  # type: ignore[override]
        num_bytes = super().readinto(buffer) or 0
        self._count(num_bytes)
        return num_bytes


def _key(path: Path) -> str:
    try:
        status = path.stat()
    except OSError as error:
        raise ModelRefused(f"{path.name} cannot be read: {error.strerror}.") from None
    facts = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return " ".join([*map(str, facts), str(path.resolve())])


def _is_settled(path: Path) -> bool:
    status = path.stat()
    return time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) > SETTLED_NS


def _read_cache(path: Path) -> dict[str, str]:
    """The remembered hashes; none when the file is absent, damaged or not safely ours."""
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if status.st_uid != os.geteuid() or status.st_mode & 0o022:
                return {}
            entries = json.loads(file.read(MAX_CACHE_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    hashes = entries.get("sha256") if isinstance(entries, dict) else None
    if not isinstance(hashes, dict):
        return {}
    return {key: value for key, value in hashes.items() if is_sha256(value)}


def is_sha256(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")


def _write_cache(path: Path, known: dict[str, str]) -> None:
    """Replace the file in one step, so a reader sees the old or the new one, whole."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
            json.dump({"sha256": known}, file)
        Path(file.name).replace(path)
    except OSError:  # read-only or full: the next start hashes again
        return
