"""Writes and checks files whose alteration shows: JSON lines, each with the hash of the one before.

A writer of the file can also forge a whole new chain, or cut entries off its end, and the rest is a
valid chain again. Only a hash that is kept elsewhere helps against that: the `head`.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from io import BufferedRandom
    from pathlib import Path

    IsFacts: TypeAlias = Callable[[Mapping[str, object]], bool]

LINK_FIELDS = frozenset({"number", "at", "previous", "hash"})


@dataclass(frozen=True, slots=True)
class Link:
    """One entry: where it is in the chain, and the facts that it holds."""

    number: int
    at: str
    previous: str | None
    hash: str
    facts: Mapping[str, object]

    def line(self) -> str:
        return canonical(self.as_dict())

    def as_dict(self) -> dict[str, object]:
        link = {"number": self.number, "at": self.at, "previous": self.previous, "hash": self.hash}
        return {**self.facts, **link}


def forge(facts: Mapping[str, object], number: int, previous: str | None, at: str) -> Link:
    """Makes the entry that follows `previous`."""
    place = {"number": number, "at": at, "previous": previous}
    return Link(number, at, previous, _hash({**facts, **place}), facts)


def timestamp() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(slots=True)
class ChainCheck:
    """Follows a chain line by line, from its beginning or from a given place in it."""

    is_facts: IsFacts  # whether an entry holds the facts that its writer writes
    number: int = 0
    previous: str | None = None
    is_anchored: bool = True  # else the first entry may follow any: older files were removed

    def read(self, line: str) -> tuple[Link | None, list[str]]:
        """The entry of the next line, and all that is wrong with it."""
        self.number += 1
        link = parse_link(line, self.is_facts)
        if link is None:
            self.previous = None
            return None, ["this is not an entry as this program writes it."]
        problems = list(self._problems(link))
        self.previous = link.hash
        self.is_anchored = True
        return link, problems

    def _problems(self, link: Link) -> Iterator[str]:
        facts = link.as_dict()
        del facts["hash"]
        if link.hash != _hash(facts):
            yield "this entry was changed after it was written: its hash does not fit."
        if link.number != self.number:
            yield f"this is entry {link.number}: entries were removed, added or moved before it."
        elif link.previous != self.previous and self.is_anchored:
            yield "the entry before is not the one that this one followed."


def parse_link(line: str, is_facts: IsFacts) -> Link | None:
    """None of everything that this program would not have written, down to the spaces."""
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(fields, dict) or not fields.keys() >= LINK_FIELDS:
        return None
    number, at, previous, digest = (fields[name] for name in ("number", "at", "previous", "hash"))
    if type(number) is not int or not isinstance(at, str) or not isinstance(digest, str):
        return None
    if previous is not None and not isinstance(previous, str):
        return None
    facts = {name: value for name, value in fields.items() if name not in LINK_FIELDS}
    link = Link(number, at, previous, digest, facts)
    return link if is_facts(facts) and link.line() == line else None


class ChainFile:
    """A chain in one file. Appending holds a lock, so that two commands cannot fork the chain."""

    def __init__(self, path: Path, is_facts: IsFacts) -> None:
        self.path = path
        self._is_facts = is_facts

    def inspect(self, head: str | None = None) -> tuple[list[Link], list[str]]:
        """What can be read, and all that is wrong with it. `head` is a hash that must be in it."""
        links: list[Link] = []
        problems: list[str] = []
        check = ChainCheck(self._is_facts)
        for number, line in enumerate(read_lines(self.path), start=1):
            link, wrong = check.read(line)
            problems += [f"{self.path}:{number}: {each}" for each in wrong]
            links += [] if link is None else [link]
        if head is not None and head not in {link.hash for link in links}:
            problems.append(missing_head(self.path, head))
        return links, problems

    def append(
        self, facts: Mapping[str, object], read: Callable[[], Sequence[Link]] | None = None
    ) -> Link:
        """Adds one entry after those that `read` returns, which raises if nothing may be added."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            links = self.inspect()[0] if read is None else read()
            previous = links[-1].hash if links else None
            link = forge(facts, len(links) + 1, previous, timestamp())
            write_lines(file, [link.line()])
        return link


def missing_head(where: Path, head: str) -> str:
    return (
        f"{where}: no entry has the hash {head}: the end was cut off, or the history was written "
        "anew."
    )


def read_lines(path: Path) -> list[str]:
    """The lines of a file, or none of one that does not exist."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    return text.removesuffix("\n").split("\n") if text else []


def write_lines(file: BufferedRandom, lines: Iterable[str]) -> None:
    """Appends lines, also after one that an editor left open; all of them or nothing."""
    size_bytes = file.seek(0, os.SEEK_END)
    file.seek(max(0, size_bytes - 1))
    opening = "" if file.read(1) in {b"", b"\n"} else "\n"
    try:
        file.write((opening + "".join(f"{line}\n" for line in lines)).encode())
        file.flush()
        os.fsync(file.fileno())
    except OSError:  # a full disk
        os.ftruncate(file.fileno(), size_bytes)
        raise


def _hash(facts: Mapping[str, object]) -> str:
    return hashlib.sha256(canonical(facts).encode()).hexdigest()


def canonical(facts: Mapping[str, object]) -> str:
    return json.dumps(facts, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
