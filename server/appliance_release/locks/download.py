"""Downloads one locked file: resumes earlier attempts, checks size and SHA-256."""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import os
import time
from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING

from appliance.errors import ReleaseError
from appliance_release.locks.hub import Broken

if TYPE_CHECKING:
    from collections.abc import Iterator
    from hashlib import _Hash
    from io import BufferedRandom
    from pathlib import Path

    from appliance_release.locks.hub import Hub
    from appliance_release.locks.model_lock import PinnedFile

CHUNK_BYTES = 1 << 20
# Pauses before further attempts; an attempt that brought bytes starts again at the first.
RETRY_DELAYS_S = (1.0, 2.0, 4.0, 8.0, 16.0)

Count = Callable[[int], None]  # bytes that arrived; negative when they are discarded


class Download:
    """The download of one file into a part file that outlives this process."""

    def __init__(self, hub: Hub, repository: str, url: str, pin: PinnedFile) -> None:
        self._hub = hub
        self._repository = repository
        self._url = url
        self._pin = pin

    def fetch(self, part: Path, count: Count) -> None:
        """Downloads the locked bytes into `part`; counts bytes that are there and that arrive."""
        with _locked(part) as file:
            was_begun = os.fstat(file.fileno()).st_size > 0
            if self._complete(file, count):
                return
            _empty(file, count)
            if was_begun and self._complete(file, count):  # the old part may have been the fault
                return
            _empty(file, count)
        raise ReleaseError(
            f"{self._url} is not the locked file: its SHA-256 is not {self._pin.sha256}."
            " The file was changed. Renew the lock if the change is intended."
        )

    def _complete(self, file: BufferedRandom, count: Count) -> bool:
        """Downloads the missing bytes; True if all of them are the locked ones."""
        if os.fstat(file.fileno()).st_size > self._pin.size_bytes:
            file.truncate(0)
        digest = hashlib.sha256()
        file.seek(0)
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
            count(len(chunk))
        delays = iter(RETRY_DELAYS_S)
        while file.tell() < self._pin.size_bytes:
            before = file.tell()
            try:
                digest = self._receive(file, digest, count)
                problem = "the connection ended early"
            except (Broken, OSError, http.client.HTTPException) as error:
                problem = str(error) or type(error).__name__
            if file.tell() > before:
                delays = iter(RETRY_DELAYS_S)
            elif (delay_s := next(delays, None)) is None:
                raise ReleaseError(
                    f"{self._url} cannot be fetched: {problem}. The bytes so far are kept; the"
                    " same command goes on from there."
                )
            else:
                time.sleep(delay_s)
        return digest.hexdigest() == self._pin.sha256

    def _receive(self, file: BufferedRandom, digest: _Hash, count: Count) -> _Hash:
        """Appends the bytes of one answer, up to the locked size."""
        offset = file.tell()
        with self._hub.open(self._url, self._repository, offset=offset) as response:
            if offset and response.status != 206:  # a server that does not know ranges
                _empty(file, count)
                digest = hashlib.sha256()
            left = self._pin.size_bytes - file.tell()
            while left and (chunk := response.read(min(CHUNK_BYTES, left))):
                _append(file, chunk)
                digest.update(chunk)
                count(len(chunk))
                left -= len(chunk)
        return digest


def _append(file: BufferedRandom, chunk: bytes) -> None:
    try:
        file.write(chunk)
        file.flush()
    except OSError as error:  # such as a full disk, where another attempt does not help
        raise ReleaseError(f"{file.name} cannot be written: {error.strerror}.") from None


def _empty(file: BufferedRandom, count: Count) -> None:
    count(-file.tell())
    file.seek(0)
    file.truncate()


@contextmanager
def _locked(part: Path) -> Iterator[BufferedRandom]:
    """Opens the part file with a lock: two downloads into one would mix their bytes."""
    try:
        with part.open("a+b") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ReleaseError(
                    f"Another process is downloading into {part}. Wait for it, or end it."
                ) from None
            yield file
    except OSError as error:
        raise ReleaseError(f"{part} cannot be written: {error.strerror}.") from None
