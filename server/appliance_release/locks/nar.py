"""Hashes a path as Nix does: SHA-256 of its contents in the NAR format.

It reads the disk, not the store's database, so it notices changes on the disk. A NAR holds names,
contents, targets of links and the executable bit, but neither times nor owners.
"""

from __future__ import annotations

import base64
import hashlib
import os
import stat
import struct
from typing import TYPE_CHECKING

from appliance.errors import ReleaseError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Say = Callable[[int], None]  # gets the number of bytes just read

CHUNK_BYTES = 1 << 20


def hash_path(path: Path, say: Say = lambda _: None) -> str:
    """Returns the hash as `nix path-info --json` prints it: `sha256-` and base 64."""
    digest = hashlib.sha256()
    try:
        digest.update(_string(b"nix-archive-1"))
        for piece in _node(path, say):
            digest.update(piece)
    except OSError as error:
        raise ReleaseError(f"{error.filename} cannot be read: {error.strerror}.") from None
    return "sha256-" + base64.b64encode(digest.digest()).decode()


def _node(path: Path, say: Say) -> Iterator[bytes]:
    status = path.lstat()
    yield _string(b"(") + _string(b"type")
    if stat.S_ISLNK(status.st_mode):
        yield _string(b"symlink") + _string(b"target") + _string(os.fsencode(path.readlink()))
    elif stat.S_ISDIR(status.st_mode):
        yield _string(b"directory")
        for name in sorted(os.fsencode(child.name) for child in path.iterdir()):
            yield _string(b"entry") + _string(b"(") + _string(b"name") + _string(name)
            yield _string(b"node")
            yield from _node(path / os.fsdecode(name), say)
            yield _string(b")")
    elif stat.S_ISREG(status.st_mode):
        yield _string(b"regular")
        if status.st_mode & stat.S_IXUSR:
            yield _string(b"executable") + _string(b"")
        yield _string(b"contents")
        yield from _contents(path, status.st_size, say)
    else:
        raise ReleaseError(f"{path} is neither a file nor a directory nor a link.")
    yield _string(b")")


def _contents(path: Path, size: int, say: Say) -> Iterator[bytes]:
    yield struct.pack("<Q", size)
    num_read = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            num_read += len(chunk)
            say(len(chunk))
            yield chunk
    if num_read != size:
        raise ReleaseError(f"{path} changed while it was read.")
    yield bytes(-size % 8)


def _string(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text + bytes(-len(text) % 8)
