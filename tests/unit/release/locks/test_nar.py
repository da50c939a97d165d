"""The NAR hash is the one that Nix computes."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from appliance.errors import ReleaseError
from appliance_release.locks.nar import hash_path


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "sub" / "none").mkdir(parents=True)
    (root / "a").write_text("hello\n")
    (root / "b").write_text("x" * 9)
    (root / "b").chmod(0o755)
    (root / "link").symlink_to("../a")
    (root / "sub" / "empty").touch()
    (root / "B").write_text("12345678")
    (root / "ä").write_text("")
    return root


def sri(nar: bytes) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(nar).digest()).decode()


def test_a_file_hashes_to_what_the_format_says(tmp_path: Path) -> None:
    def text(each: bytes) -> bytes:
        return len(each).to_bytes(8, "little") + each + bytes(-len(each) % 8)

    path = tmp_path / "file"
    path.write_bytes(b"hello")
    words = (b"nix-archive-1", b"(", b"type", b"regular", b"contents", b"hello", b")")
    assert hash_path(path) == sri(b"".join(map(text, words)))


def test_it_hashes_as_nix_does(tree: Path) -> None:
    if shutil.which("nix-store") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("nix-store is not installed; in CI it must be there")
        pytest.skip("nix-store is not installed")
    dumped = subprocess.run(
        ["nix-store", "--dump", str(tree)], capture_output=True, check=True, timeout=60
    )
    assert hash_path(tree) == sri(dumped.stdout)


def test_it_hashes_as_nix_did_when_this_was_written(tree: Path) -> None:
    assert hash_path(tree) == "sha256-9fy/+Laq9ewk6KG2ePkeGcftgAf7h6rV3VwZctsQB/0="


def test_the_executable_bit_counts_and_times_do_not(tree: Path) -> None:
    before = hash_path(tree)
    os.utime(tree / "a", (1, 1))
    assert hash_path(tree) == before
    (tree / "a").chmod(0o755)
    assert hash_path(tree) != before


def test_progress_is_counted_in_bytes(tree: Path) -> None:
    read: list[int] = []
    hash_path(tree, read.append)
    assert sum(read) == 6 + 9 + 8


def test_what_is_neither_file_nor_directory_nor_link_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ReleaseError, match="pipe is neither a file"):
        hash_path(tmp_path)


def test_a_path_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match="nowhere cannot be read: No such file"):
        hash_path(tmp_path / "nowhere")
