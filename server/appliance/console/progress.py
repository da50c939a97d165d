"""Shows the progress of a long transfer: a bar on a terminal, a line every 15 s in a file."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from appliance.console.ink import printable

if TYPE_CHECKING:
    from appliance.console.terminal import Terminal

BAR_CELLS = 24
NAME_CELLS = 34
REDRAW_S = 0.1
LINE_EVERY_S = 15.0
ERASE_REST = "\x1b[K"


def size_text(num_bytes: float) -> str:
    """Return a size with three digits and a decimal unit, as download tools show it."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if num_bytes < 999.5 or unit == "GB":
            break
        num_bytes /= 1000
    if unit == "bytes" or num_bytes >= 100:
        return f"{num_bytes:.0f} {unit}"
    return f"{num_bytes:.1f} {unit}"


class Progress:
    """Counts bytes of `total_bytes` from any thread; `start_bytes` were there before."""

    def __init__(self, terminal: Terminal, total_bytes: int, start_bytes: int = 0) -> None:
        self._terminal = terminal
        self._total_bytes = total_bytes
        self._done_bytes = self._start_bytes = start_bytes
        self._started_s = self._drawn_s = time.monotonic()
        self._lock = threading.Lock()
        self._name = ""

    def add(self, name: str, num_bytes: int) -> None:
        with self._lock:
            self._done_bytes += num_bytes
            self._name = name
            now_s = time.monotonic()
            every_s = REDRAW_S if self._terminal.is_interactive else LINE_EVERY_S
            if now_s - self._drawn_s >= every_s:
                self._drawn_s = now_s
                self._draw(now_s)

    def say(self, line: str) -> None:
        """Write a line above the bar."""
        with self._lock:
            self._erase()
            self._terminal.write(f"{line}\n")

    def finish(self) -> None:
        with self._lock:
            self._erase()

    def _erase(self) -> None:
        if self._terminal.is_interactive:
            self._terminal.write(f"\r{ERASE_REST}")

    def _draw(self, now_s: float) -> None:
        share = min(1.0, self._done_bytes / self._total_bytes) if self._total_bytes else 1.0
        speed = (self._done_bytes - self._start_bytes) / max(now_s - self._started_s, 1e-3)
        left = (self._total_bytes - self._done_bytes) / speed if speed > 0 else None
        facts = f"{share:4.0%}  {size_text(self._done_bytes)} of {size_text(self._total_bytes)}"
        facts += f"  {size_text(max(0.0, speed))}/s"
        facts += f"  {time_text(left)} left" if left is not None else ""
        name = printable(self._name)[:NAME_CELLS]
        if not self._terminal.is_interactive:
            self._terminal.write(f"{facts}  {name}\n")
            return
        num_full = round(share * BAR_CELLS)
        bar = "#" * num_full + "-" * (BAR_CELLS - num_full)
        self._terminal.write(f"\r  {bar} {facts}  {name}{ERASE_REST}")


def time_text(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 100 else f"{minutes / 60:.1f} h"
