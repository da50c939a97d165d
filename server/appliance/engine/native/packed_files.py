"""Keeps packed weights on disk: written whole, shared by processes, removed when unused."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import mmap
import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from appliance.engine.native.kernels.build import private_directory

logger = logging.getLogger(__name__)

Settle = Callable[[int, int], object]  # called with offset and size of what is written
Write = Callable[[mmap.mmap, Settle], None]

MAX_UNUSED = 3  # files that are kept although no process has them open
ABANDONED_S = 60.0  # an unfinished, unlocked file this old: its writer was ended
SUFFIX = ".weights"


def open_packed(cache_dir: Path | None, key: str, size: int, write: Write) -> mmap.mmap:
    """Map the file of this name, made by `write` if missing; use memory without a cache.

    A map of the file is shared with every process that has it, and on recent kernels it is made of
    huge pages. It holds a lock on the file for as long as it lives, which keeps the file.
    """
    directory = private_directory(cache_dir, "packed")
    if directory is None:
        return _in_memory(size, write)
    path = directory / f"{key}{SUFFIX}"
    try:
        if not _is_whole(path, size):
            _remove_unused(directory)  # first: unused files may be what fills the disk
            _write_whole(path, size, write)
        pages = _map(path, size)
    except OSError as error:  # a full disk; a file system without locks; removed by another process
        extra = {"directory": str(directory), "why": error.strerror}
        logger.warning("packed weights cannot be kept", extra=extra)
        return _in_memory(size, write)
    _remove_unused(directory)
    return pages


def _is_whole(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except FileNotFoundError:
        return False


def _in_memory(size: int, write: Write) -> mmap.mmap:
    pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    _prefer_huge_pages(pages)
    write(pages, lambda offset, size: None)
    return pages


def _map(path: Path, size: int) -> mmap.mmap:
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)  # the map keeps the open file, and with it the lock
        os.utime(file.fileno())  # when it was last used
        pages = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)
    _prefer_huge_pages(pages)
    return pages


def _prefer_huge_pages(pages: mmap.mmap) -> None:
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel without them
            pages.madvise(mmap.MADV_HUGEPAGE)


def _write_whole(path: Path, size: int, write: Write) -> None:
    """Write all or nothing: others see a complete file; the last of two writers wins."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".packing-")
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        os.posix_fallocate(descriptor, 0, size)  # a full disk is an error now, not a crash later
        with mmap.mmap(descriptor, size) as pages:
            # The page cache has what is written; mapped here it would only count as ours.
            write(pages, partial(pages.madvise, mmap.MADV_DONTNEED))
        os.fsync(descriptor)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)


def _remove_unused(directory: Path) -> None:
    """Remove all but files in use and the few used last, and what dead writers left."""
    with contextlib.suppress(OSError):  # another process removes at the same time
        unused = [path for path in directory.glob(f"*{SUFFIX}") if not _is_used(path)]
        unused.sort(key=lambda path: path.stat().st_mtime)
        for path in unused[: -MAX_UNUSED or None]:
            path.unlink(missing_ok=True)
        for path in directory.glob(".packing-*"):
            if time.time() - path.stat().st_mtime > ABANDONED_S and not _is_used(path):
                path.unlink(missing_ok=True)


def _is_used(path: Path) -> bool:
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False
