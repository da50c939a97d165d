"""Writes to standard error for people; a stream that fails never fails the program."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from appliance.console.ink import printable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TextIO

TICK_S = 0.1
MAX_NAME_CHARS = 40
ERASE_REST = "\x1b[K"


def open_missing_streams() -> None:
    """Open /dev/null for closed descriptors 0 to 2: a file of ours would take their numbers."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:  # closed; the lowest free number is taken, so it is this one
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115, PTH123


def discard_unwritten() -> None:
    """Flush, or discard what cannot be written: Python's own attempt would change the exit code."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class Terminal:
    """Writes to a stream; if it is closed, full or without a reader, the text is lost."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._note = ""

    @property
    def is_interactive(self) -> bool:
        try:
            return self._stream is not None and self._stream.isatty()
        except ValueError:  # closed
            return False

    def write(self, text: str) -> None:
        if self._stream is None:
            return
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)
            self._stream.flush()

    def write_line(self, text: str) -> None:
        self.write(f"{printable(text)}\n")

    def show_hashing(self, done_bytes: int, total_bytes: int) -> None:
        """Show in the current line how far hashing has come; may be called from any thread."""
        is_done = done_bytes >= total_bytes
        self._note = "" if is_done else f", hashing {done_bytes * 100 // total_bytes} %"

    def show_share(self, done: int, total: int) -> None:
        """Show in the current line how much of the work is done."""
        self._note = f", {done * 100 // total} %"

    @contextmanager
    def loading(self, name: str) -> Iterator[None]:
        """Show for how long `name` has been loading; a file gets one line that says so."""
        if not self.is_interactive:
            self.write(f"loading {printable(name)}\n")
        with self.counting(f"loading {printable(name)[:MAX_NAME_CHARS]}"):
            yield

    @contextmanager
    def counting(self, what: str) -> Iterator[None]:
        """Show on a terminal for how long `what` has been running, then remove the line."""
        if not self.is_interactive:
            yield
            return
        is_done = threading.Event()
        started_s = time.monotonic()

        def tick() -> None:
            while True:
                elapsed = f"{time.monotonic() - started_s:.1f} s"
                self.write(f"\r  {what} … {elapsed}{self._note}{ERASE_REST}")
                if is_done.wait(TICK_S):
                    return

        ticker = threading.Thread(target=tick, name="terminal-line", daemon=True)
        ticker.start()
        try:
            yield
        finally:
            is_done.set()
            ticker.join()
            self.write(f"\r{ERASE_REST}")  # the banner, or the error, takes the line's place
