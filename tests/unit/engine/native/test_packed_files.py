"""Packed files are written whole, shared while they are used, and removed when long unused."""

from __future__ import annotations

import errno
import fcntl
import logging
import mmap
import os
import time
from pathlib import Path

import pytest

from appliance.engine.native import packed_files
from appliance.engine.native.packed_files import MAX_UNUSED, Settle, open_packed

SIZE = 8192


def write(pages: mmap.mmap, settle: Settle) -> None:
    pages[:] = b"x" * SIZE
    settle(0, SIZE)


def names(cache_dir: Path) -> set[str]:
    return {path.name.removesuffix(".weights") for path in (cache_dir / "packed").iterdir()}


def test_it_is_written_once_and_read_ever_after(tmp_path: Path) -> None:
    def fail(pages: mmap.mmap, settle: Settle) -> None:
        raise AssertionError("it is there already")

    first = open_packed(tmp_path, "a", SIZE, write)
    assert open_packed(tmp_path, "a", SIZE, fail)[:] == first[:] == b"x" * SIZE


def test_the_few_used_last_are_kept_and_the_rest_removed(tmp_path: Path) -> None:
    for index in range(MAX_UNUSED + 3):
        open_packed(tmp_path, f"k{index}", SIZE, write).close()
        os.utime(tmp_path / "packed" / f"k{index}.weights", (index, index))
    last = open_packed(tmp_path, "new", SIZE, write)
    kept = {f"k{index}" for index in range(3, MAX_UNUSED + 3)}
    assert names(tmp_path) == kept | {"new"}
    assert last[:1] == b"x"


def test_what_a_process_has_open_is_never_removed(tmp_path: Path) -> None:
    used = open_packed(tmp_path, "used", SIZE, write)
    os.utime(tmp_path / "packed" / "used.weights", (0, 0))
    for index in range(MAX_UNUSED + 3):
        open_packed(tmp_path, f"k{index}", SIZE, write).close()
    assert "used" in names(tmp_path)
    used.close()
    os.utime(tmp_path / "packed" / "used.weights", (0, 0))
    open_packed(tmp_path, "new", SIZE, write)
    assert "used" not in names(tmp_path)


def test_being_used_again_counts(tmp_path: Path) -> None:
    for index in range(MAX_UNUSED):
        open_packed(tmp_path, f"k{index}", SIZE, write).close()
        os.utime(tmp_path / "packed" / f"k{index}.weights", (index, index))
    open_packed(tmp_path, "k0", SIZE, write).close()
    open_packed(tmp_path, "new", SIZE, write).close()
    open_packed(tmp_path, "newer", SIZE, write).close()
    assert "k0" in names(tmp_path)
    assert "k1" not in names(tmp_path)


def test_what_a_dead_writer_left_goes_and_what_a_living_one_writes_stays(tmp_path: Path) -> None:
    open_packed(tmp_path, "a", SIZE, write).close()
    dead, young = (tmp_path / "packed" / f".packing-{name}" for name in ("dead", "young"))
    for path in (dead, young):
        path.write_bytes(b"")
    os.utime(dead, (0, time.time() - packed_files.ABANDONED_S - 1))

    def write_slowly(pages: mmap.mmap, settle: Settle) -> None:
        (own,) = (path for path in (tmp_path / "packed").glob(".packing-*") if path != young)
        os.utime(own, (0, 0))
        open_packed(tmp_path, "other", SIZE, write)
        assert own.exists()
        write(pages, settle)

    dead_before = dead.exists()
    open_packed(tmp_path, "b", SIZE, write)
    assert dead_before
    assert not dead.exists()
    assert young.exists()
    open_packed(tmp_path, "c", SIZE, write_slowly)
    assert "c" in names(tmp_path)


def test_on_a_full_disk_the_weights_stay_in_memory_and_the_log_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(descriptor: int, offset: int, size: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with caplog.at_level(logging.WARNING):
        assert open_packed(tmp_path, "a", SIZE, write)[:] == b"x" * SIZE
    assert caplog.messages == ["packed weights cannot be kept"]
    assert names(tmp_path) == set()


def test_what_a_dead_writer_left_is_gone_before_the_next_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Servers that are ended while they pack, one after the other, must not fill the disk."""
    dead = tmp_path / "packed" / ".packing-dead"
    dead.parent.mkdir(mode=0o700)
    dead.write_bytes(b"")
    os.utime(dead, (0, time.time() - 2 * packed_files.ABANDONED_S))

    allocate = os.posix_fallocate

    def refuse_beside_it(descriptor: int, offset: int, size: int) -> None:
        if dead.exists():
            raise OSError(errno.ENOSPC, "No space left on device")
        allocate(descriptor, offset, size)

    monkeypatch.setattr(os, "posix_fallocate", refuse_beside_it)
    open_packed(tmp_path, "a", SIZE, write)
    assert names(tmp_path) == {"a"}


def test_where_files_cannot_be_locked_the_weights_stay_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    open_packed(tmp_path, "a", SIZE, write).close()

    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with caplog.at_level(logging.WARNING):
        assert open_packed(tmp_path, "a", SIZE, write)[:] == b"x" * SIZE
    assert caplog.messages == ["packed weights cannot be kept"]


def test_without_a_cache_they_are_made_in_memory() -> None:
    assert open_packed(None, "a", SIZE, write)[:] == b"x" * SIZE
