"""A history that shows when it was altered: JSON lines, each with the hash of the one before.

Whoever can write the file can also forge a whole new chain, or cut entries off its end, and the
rest is a valid chain again. Against that helps only a hash that is kept elsewhere: the `head`.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from appliance.errors import ReleaseError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import BufferedRandom
    from pathlib import Path


OPTIONAL = frozenset({"before", "why", "record", "previous"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What somebody did, without where it stands in the chain."""

    by: str
    action: str
    target: str  # an overlay, or the generation that was recorded
    before: str | None
    after: str
    why: str | None = None
    record: str | None = None  # SHA-256 of the record of the generation, if there was one


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry(Change):
    number: int
    at: str
    previous: str | None
    hash: str

    def line(self) -> str:
        return _canonical(asdict(self))


class AuditLog:
    """One file. Appending holds a lock, so that two commands cannot fork the chain."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def entries(self) -> list[Entry]:
        """All of them, in order; a ReleaseError if the chain does not hold."""
        entries, problems = self.inspect()
        if problems:
            raise ReleaseError(
                f"{problems[0]} Nothing is added to a history that was altered; "
                "`appliance pin history --verify` shows all that is wrong, and version control has "
                "the file as it was."
            )
        return entries

    def inspect(self, head: str | None = None) -> tuple[list[Entry], list[str]]:
        """What can be read, and all that is wrong with it. `head` is a hash that must be in it."""
        entries: list[Entry] = []
        problems: list[str] = []
        previous: str | None = None
        for number, line in enumerate(self._lines(), start=1):
            where = f"{self.path}:{number}:"
            entry = _parse(line)
            if entry is None:
                problems.append(f"{where} this is not an entry as `appliance pin` writes it.")
                previous = None
                continue
            problems.extend(f"{where} {each}" for each in _problems(entry, number, previous))
            previous = entry.hash
            entries.append(entry)
        if head is not None and head not in {entry.hash for entry in entries}:
            problems.append(
                f"{self.path}: no entry has the hash {head}: the end was cut off, or the history "
                "was written anew."
            )
        return entries, problems

    def append(self, change: Change) -> Entry:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                entry = _next(self.entries(), change)
                _write_line(file, entry.line())
        except OSError as error:
            raise ReleaseError(f"{self.path} cannot be written: {error.strerror}.") from None
        return entry

    def _lines(self) -> list[str]:
        try:
            text = self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return []
        except (OSError, UnicodeDecodeError) as error:
            raise ReleaseError(f"{self.path} cannot be read: {error}.") from None
        return text.removesuffix("\n").split("\n") if text else []


def _next(entries: list[Entry], change: Change) -> Entry:
    facts = {
        **asdict(change),
        "number": len(entries) + 1,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "previous": entries[-1].hash if entries else None,
    }
    return Entry(**facts, hash=_hash(facts))


def _write_line(file: BufferedRandom, line: str) -> None:
    """A line of its own also after one that an editor left open; all of it or nothing."""
    size_bytes = file.seek(0, os.SEEK_END)
    file.seek(max(0, size_bytes - 1))
    opening = "" if file.read(1) in {b"", b"\n"} else "\n"
    try:
        file.write(f"{opening}{line}\n".encode())
        file.flush()
        os.fsync(file.fileno())
    except OSError:  # a full disk
        os.ftruncate(file.fileno(), size_bytes)
        raise


def _parse(line: str) -> Entry | None:
    """None of everything that this program would not have written, down to the spaces."""
    try:
        facts = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(facts, dict) or set(facts) != {field.name for field in fields(Entry)}:
        return None
    if not all(_is_fact(name, value) for name, value in facts.items()):
        return None
    entry = Entry(**facts)
    return entry if entry.line() == line else None


def _is_fact(name: str, value: object) -> bool:
    if name == "number":
        return type(value) is int
    return isinstance(value, str) or (value is None and name in OPTIONAL)


def _problems(entry: Entry, number: int, previous: str | None) -> Iterator[str]:
    facts = asdict(entry)
    del facts["hash"]
    if entry.hash != _hash(facts):
        yield "this entry was changed after it was written: its hash does not fit."
    if entry.number != number:
        yield f"this is entry {entry.number}: entries were removed, added or moved before it."
    elif entry.previous != previous:
        yield "the entry before is not the one that this one followed."


def _hash(facts: dict[str, object]) -> str:
    return hashlib.sha256(_canonical(facts).encode()).hexdigest()


def _canonical(facts: dict[str, object]) -> str:
    return json.dumps(facts, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
