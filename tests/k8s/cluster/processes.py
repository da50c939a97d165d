"""Starts the cluster's programs, each with a log, and waits for what they bring about."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

POLL_S = 0.2
PATIENCE_S = 240.0  # a machine may be slow and busy; what never comes costs this once


class Programs:
    """All that was started, to be stopped in reverse order."""

    def __init__(self, logs: Path) -> None:
        self.logs = logs
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, *command: str | Path, environ: Mapping[str, str] = {}) -> None:
        with (self.logs / f"{name}.log").open("wb") as log:
            self._running[name] = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environ},
            )

    def check(self) -> None:
        """Fails with the end of the log if one of them has ended."""
        for name, process in self._running.items():
            if process.poll() is not None:
                said = self.last_words(name)
                raise RuntimeError(f"{name} ended with {process.returncode}; its log ends:\n{said}")

    def last_words(self, name: str, num_lines: int = 20) -> str:
        text = (self.logs / f"{name}.log").read_text(errors="replace")
        return "\n".join(text.splitlines()[-num_lines:])

    def stop(self, timeout_s: float = 10.0) -> None:
        for process in reversed(self._running.values()):
            process.terminate()
            try:
                process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._running.clear()

    def wait(self, what: str, is_so: Callable[[], bool], timeout_s: float = PATIENCE_S) -> float:
        """Seconds until it is so; fails early when a program has ended."""
        try:
            return wait(what, is_so, timeout_s, meanwhile=self.check)
        except TimeoutError as error:
            ends = "\n".join(f"{name}:\n{self.last_words(name, 5)}" for name in self._running)
            raise TimeoutError(f"{error}\n{ends}") from None


def wait(
    what: str,
    is_so: Callable[[], bool],
    timeout_s: float = PATIENCE_S,
    meanwhile: Callable[[], object] = lambda: None,
) -> float:
    started_at = time.monotonic()
    while not is_so():
        meanwhile()
        if time.monotonic() - started_at > timeout_s:
            raise TimeoutError(f"{what}: not so after {timeout_s:g} s")
        time.sleep(POLL_S)
    return time.monotonic() - started_at
