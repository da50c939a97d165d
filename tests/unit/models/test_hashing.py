"""Hashing gigabytes ends when it is told to; the rest is tested with the identity."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import pytest

from appliance.models.hashing import FileHasher


def test_hashing_that_is_interrupted_does_not_read_on(tmp_path: Path) -> None:
    paths = [tmp_path / "a", tmp_path / "b"]
    for path in paths:
        with path.open("wb") as file:
            file.truncate(2**31)
    seen: list[int] = []

    def interrupt(done_bytes: int, total_bytes: int) -> None:
        seen.append(done_bytes)
        if len(seen) == 1:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        FileHasher(progress=interrupt).hash_files(paths)
    assert max(seen) < 2**30
