"""Writes a chained entry for every answer: who asked, what of, how it ended; never the text.

Entries are handed over without waiting and written by a thread, which syncs each batch to the disk.
A process that is killed loses the entries of the last moment (some 0.1 s); that it was killed
shows as a `start` without a `stop` before it.
"""

from __future__ import annotations

import fcntl
import logging
import os
import queue
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from appliance.access.chain import ChainCheck, Link, forge, parse_link, timestamp, write_lines
from appliance.errors import AccessError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

logger = logging.getLogger(__name__)

MAX_FILE_BYTES = 64 * 1024 * 1024
MAX_WAITING = 100_000  # entries in memory while the disk does not take them; more are counted only
BATCH_INTERVAL_S = 0.05
RETRY_S = 1.0
CLOSE_TIMEOUT_S = 10.0
HEAD_DIGITS = 13  # of the hash, in a gauge: 52 bits are exact in a float

TEXT = (str,)
MAYBE_TEXT = (str, type(None))
FACTS: Mapping[str, Mapping[str, tuple[type, ...]]] = {
    "start": {"version": TEXT, "torn_bytes": (int,)},
    "answer": {
        "who": TEXT,
        "key": MAYBE_TEXT,
        "model": MAYBE_TEXT,
        "fingerprint": MAYBE_TEXT,
        "route": TEXT,
        "status": (int,),
        "request_id": TEXT,
        "request": MAYBE_TEXT,  # SHA-256 of the body
        "answer": MAYBE_TEXT,
    },
    "lost": {"count": (int,)},  # entries that could not be written
    "stop": {},
}


def is_audit_entry(facts: Mapping[str, object]) -> bool:
    event = facts.get("event")
    kinds = FACTS.get(event) if isinstance(event, str) else None
    if kinds is None or facts.keys() != {"event", *kinds}:
        return False
    return all(type(facts[name]) in kind for name, kind in kinds.items())


@dataclass(frozen=True, slots=True)
class Head:
    """The end of the chain: the number of its last entry and its hash."""

    number: int
    hash: str | None

    @property
    def gauge(self) -> int:
        """The first digits of the hash as a number: a label would be a new series each time."""
        return int(self.hash[:HEAD_DIGITS], 16) if self.hash else 0


class AuditLog:
    """The chain in a directory, of one server: a file a day, more where it grows too long."""

    def __init__(
        self, directory: Path, *, version: str, max_file_bytes: int = MAX_FILE_BYTES
    ) -> None:
        self.directory = directory
        self.num_lost = 0
        self._max_file_bytes = max_file_bytes
        self._waiting: queue.SimpleQueue[tuple[str, Mapping[str, object]] | None] = (
            queue.SimpleQueue()
        )
        self._num_untold = 0  # of the lost ones: not in the chain so far
        self._is_failing = False
        self._closing = threading.Event()
        try:
            self._lock = self._take_lock()
            self._path, self.head, torn_bytes = _find_end(directory)
        except OSError as error:
            raise AccessError(
                f"--audit-log {directory} cannot be used: {error.strerror}."
            ) from None
        self.add({"event": "start", "version": version, "torn_bytes": torn_bytes})
        self._thread = threading.Thread(target=self._write_all, name="audit", daemon=True)
        self._thread.start()

    def add(self, facts: Mapping[str, object]) -> None:
        """Hands over an entry. Never waits; called from the event loop."""
        if self._waiting.qsize() >= MAX_WAITING:
            self.num_lost += 1
            self._num_untold += 1
        else:
            self._waiting.put((timestamp(), facts))

    def close(self, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """Writes what waits and the last entry."""
        if not self._closing.is_set():
            self._closing.set()
            self._waiting.put((timestamp(), {"event": "stop"}))
            self._waiting.put(None)
            self._thread.join(timeout_s)
            os.close(self._lock)

    def _take_lock(self) -> int:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(self.directory / ".lock", os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise AccessError(
                f"Another server writes to --audit-log {self.directory}. Give each its own."
            ) from None
        return lock

    def _write_all(self) -> None:
        is_over = False
        while not is_over:
            batch, is_over = self._next_batch()
            if batch and not self._persist(batch):
                return
            self._closing.wait(BATCH_INTERVAL_S)

    def _persist(self, batch: list[tuple[str, Mapping[str, object]]]) -> bool:
        """Tries until the disk takes it; at the end of the process, once more."""
        while not self._write(batch):
            if self._closing.wait(RETRY_S):
                return self._write(batch)
        return True

    def _next_batch(self) -> tuple[list[tuple[str, Mapping[str, object]]], bool]:
        batch = []
        item = self._waiting.get()
        while item is not None:
            batch.append(item)
            if self._waiting.empty():
                return batch, False
            item = self._waiting.get()
        return batch, True

    def _write(self, batch: list[tuple[str, Mapping[str, object]]]) -> bool:
        num_untold = self._num_untold
        if num_untold:
            batch = [*batch, (timestamp(), {"event": "lost", "count": num_untold})]
        number, previous = self.head.number, self.head.hash
        links: list[Link] = []
        for at, facts in batch:
            links.append(forge(facts, number + 1, previous, at))
            number, previous = links[-1].number, links[-1].hash
        try:
            self._append(links)
        except OSError as error:
            if not self._is_failing:
                logger.error("audit log not written", extra={"why": error.strerror})  # noqa: TRY400
            self._is_failing = True
            return False
        self._is_failing = False
        self._num_untold -= num_untold
        self.head = Head(number, previous)
        return True

    def _append(self, links: list[Link]) -> None:
        path = self._path
        if path is None or self._is_full(path, links[0].at):
            path = self.directory / file_name(links[0].number)
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_APPEND, 0o600)
        with os.fdopen(descriptor, "r+b") as file:
            write_lines(file, (link.line() for link in links))
        self._path = path

    def _is_full(self, path: Path, at: str) -> bool:
        with path.open(encoding="utf-8") as file:
            link = parse_link(file.readline().rstrip("\n"), is_audit_entry)
        is_of_today = link is not None and link.at[:10] == at[:10]
        return not is_of_today or path.stat().st_size >= self._max_file_bytes


def file_name(number: int) -> str:
    """The name of the file that begins with entry `number`."""
    return f"audit-{number:012d}.jsonl"


def files_of(directory: Path) -> list[Path]:
    """In the order of the chain."""
    return sorted(directory.glob("audit-*.jsonl"))


def _find_end(directory: Path) -> tuple[Path | None, Head, int]:
    """The last file, its last entry, and the bytes of a torn line that were moved out of it."""
    files = files_of(directory)
    if not files:
        return None, Head(0, None), 0
    path = files[-1]
    data = path.read_bytes()
    whole, _, torn = data.rpartition(b"\n")
    if torn:  # the machine stopped within a write
        path.with_suffix(".torn").write_bytes(torn)
        os.truncate(path, len(data) - len(torn))
    if not whole:
        path.unlink()
        end, head, _ = _find_end(directory)
        return end, head, len(torn)
    line = whole.rpartition(b"\n")[2].decode(errors="replace")
    link = parse_link(line, is_audit_entry)
    if link is None:
        raise AccessError(
            f"The last line of {path} is not an entry of an audit log, so the chain cannot go on. "
            f"`appliance audit verify {directory}` shows what is wrong; give --audit-log another "
            "directory meanwhile."
        )
    return path, Head(link.number, link.hash), len(torn)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a check of a directory found."""

    first: int  # number of the first entry that is there: 1, unless old files were removed
    head: Head
    problems: list[str]


def verify(directory: Path, head: str | None = None) -> Verdict:
    """Checks the whole chain. `head` is a hash, or its beginning, that must be in it."""
    files = files_of(directory)
    problems: list[str] = []
    first = int(files[0].stem.removeprefix("audit-")) if files else 1
    check = ChainCheck(is_audit_entry, number=first - 1, is_anchored=first == 1)
    has_head = False
    for path in files:
        if path.name != file_name(check.number + 1):
            problems.append(f"{path}: its name promises another entry than follows here.")
        with path.open(encoding="utf-8", errors="replace", newline="\n") as file:
            for number, line in enumerate(file, start=1):
                link, wrong = check.read(line.removesuffix("\n"))
                problems += [f"{path}:{number}: {each}" for each in wrong]
                has_head |= link is not None and head is not None and link.hash.startswith(head)
    if head is not None and not has_head:
        problems.append(
            f"{directory}: no entry has the hash {head}: the end was cut off, or the log was "
            "written anew."
        )
    return Verdict(first=first, head=Head(check.number, check.previous), problems=problems)


def head_digits(text: str) -> str:
    """The beginning of a hash from what was kept of it: hexadecimal, or the gauge's number."""
    if "." in text or "+" in text:
        return f"{int(float(text)):0{HEAD_DIGITS}x}"
    return text.lower()
