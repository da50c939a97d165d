"""Finds the lines of each key and each list element in a TOML text.

tomllib says what a text means, not where, and tomlkit, which keeps the text, does not count lines
either. The text must be one that tomllib accepts: this reads structure and checks nothing.
"""

from __future__ import annotations

import bisect
import re
import tomllib
from dataclasses import dataclass, field

KeyPath = tuple[str | int, ...]

BLANK = re.compile(r"(?:\s|#[^\n]*)*")
SPACE = re.compile(r"[ \t]*")
BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
# In this order: three quotes before one. A closing """ may have two quotes of the text before it.
STRINGS = (
    re.compile(r'"""(?:\\.|[^\\])*?"{3,5}', re.DOTALL),
    re.compile(r"'''.*?'{3,5}", re.DOTALL),
    re.compile(r'"(?:\\.|[^"\\])*"'),
    re.compile(r"'[^']*'"),
)
OTHER_VALUE = re.compile(r"[^,\]}#\n]+")  # numbers, booleans, dates with a space in them


@dataclass(frozen=True, slots=True)
class Span:
    """The line of a key and the last line of its value, counted from 1."""

    first: int
    last: int


def locate_keys(text: str) -> dict[KeyPath, Span]:
    """Maps every path in `tomllib.loads(text)` to its lines."""
    scanner = _Scanner(text)
    scanner.read_document()
    return scanner.spans


@dataclass(slots=True)
class _Scanner:
    text: str
    at: int = 0
    spans: dict[KeyPath, Span] = field(default_factory=dict)
    newest: dict[KeyPath, int] = field(default_factory=dict)  # array of tables to its last index
    newlines: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.text = self.text.replace("\r\n", "\n")
        self.newlines = [match.start() for match in re.finditer("\n", self.text)]

    def read_document(self) -> None:
        table: KeyPath = ()
        while self.skip(BLANK):
            if self.text[self.at] == "[":
                table = self.read_header()
            else:
                self.read_pair(table)

    def read_header(self) -> KeyPath:
        start = self.at
        is_element = self.take("[[")
        if not is_element:
            self.take("[")
        names = self.read_key()
        self.take("]]" if is_element else "]")
        path = self.resolve(names[:-1])
        path = (*path, names[-1])
        if is_element:
            self.mark(path, start)
            self.newest[path] = self.newest.get(path, -1) + 1
            path = (*path, self.newest[path])
        elif path in self.newest:
            path = (*path, self.newest[path])
        self.mark(path, start)
        return path

    def resolve(self, names: list[str]) -> KeyPath:
        """Turns a header's names into a path through the last element of each array of tables."""
        path: KeyPath = ()
        for name in names:
            path = (*path, name)
            if path in self.newest:
                path = (*path, self.newest[path])
        return path

    def read_pair(self, table: KeyPath) -> None:
        start = self.at
        path = (*table, *self.read_key())
        self.take("=")
        self.skip(SPACE)
        self.read_value(path)
        self.mark(path, start)

    def read_key(self) -> list[str]:
        names: list[str] = []
        while not names or self.take("."):
            self.skip(SPACE)
            quoted = next((match for each in STRINGS if (match := self.match(each))), None)
            if quoted is not None:
                names.append(str(tomllib.loads(f"key = {quoted}")["key"]))
            else:
                names.append(self.match(BARE_KEY))
            self.skip(SPACE)
        return names

    def read_value(self, path: KeyPath) -> None:
        if self.take("["):
            self.read_list(path)
        elif self.take("{"):
            while self.skip(BLANK) and not self.take("}"):
                self.read_pair(path)
                self.skip(BLANK)
                self.take(",")
        elif not any(self.match(each) for each in STRINGS):
            self.match(OTHER_VALUE)

    def read_list(self, path: KeyPath) -> None:
        index = 0
        while self.skip(BLANK) and not self.take("]"):
            start = self.at
            self.read_value((*path, index))
            self.mark((*path, index), start)
            index += 1
            self.skip(BLANK)
            self.take(",")

    def mark(self, path: KeyPath, start: int) -> None:
        """Notes a path that is written from `start` to here, and the tables it implies."""
        span = Span(self.line_of(start), self.line_of(max(start, self.at - 1)))
        for length in range(1, len(path) + 1):
            self.spans.setdefault(path[:length], span)

    def line_of(self, position: int) -> int:
        return bisect.bisect_left(self.newlines, position) + 1

    def match(self, pattern: re.Pattern[str]) -> str:
        """Steps over what matches here and returns it; an empty string if nothing does."""
        found = pattern.match(self.text, self.at)
        if found is None:
            return ""
        self.at = found.end()
        return found[0]

    def skip(self, pattern: re.Pattern[str]) -> bool:
        """Steps over what matches here; True if text remains."""
        self.match(pattern)
        return self.at < len(self.text)

    def take(self, mark: str) -> bool:
        if not self.text.startswith(mark, self.at):
            return False
        self.at += len(mark)
        return True
