"""Defines the kinds of values in a Flox manifest, and checks a value against its kind."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from appliance_release.flox.lines import KeyPath

# Of `schema-version`, in order, as Flox's manual lists them; "1" is written `version = 1`. Each is
# named after the first Flox that reads it.
VERSIONS = (
    "1", "1.10.0", "1.11.0", "1.12.0", "1.13.0", "1.14.0",
    "1.15.0", "1.16.0", "1.17.0", "1.18.0", "1.19.0",
)  # fmt: skip
NEWEST = VERSIONS[-1]

MAX_SHOWN_CHARS = 60
BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def is_before(version: str, other: str) -> bool:
    return VERSIONS.index(version) < VERSIONS.index(other)


@dataclass(frozen=True, slots=True)
class Complaint:
    """A fault, or a likely mistake, at one place of a manifest."""

    path: KeyPath
    message: str
    severity: Literal["error", "warning"] = "error"
    marked: str | None = None  # the text within a long value that the complaint is about


class Kind(Protocol):
    @property
    def words(self) -> str: ...

    def check(self, value: object, path: KeyPath, version: str) -> Iterator[Complaint]: ...


def key_name(path: KeyPath) -> str:
    """Writes the path as in TOML, with list positions in brackets."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            name = part if BARE_KEY.fullmatch(part) else f'"{part}"'
            text += f".{name}" if text else name
    return text


def show(value: object) -> str:
    """Writes a value as in TOML, on one line and not too long."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "a list"
    if not isinstance(value, str):
        return str(value)
    text = value.replace("\n", "\\n")
    return f'"{text if len(text) <= MAX_SHOWN_CHARS else text[:MAX_SHOWN_CHARS] + "…"}"'


def wrong_kind(value: object, path: KeyPath, words: str) -> Complaint:
    hint = ""
    if words == "a string" and isinstance(value, int | float):
        hint = f', such as "{show(value)}"'
    return Complaint(path, f"{key_name(path)} is {show(value)}; it must be {words}{hint}.")


def too_new(what: str, since: str, version: str) -> str:
    return f"{what} needs schema-version {since} or newer; this manifest declares {version}."


@dataclass(frozen=True, slots=True)
class Leaf:
    """One value of a type: a string of a pattern, or a number within its bounds."""

    type: type
    words: str
    pattern: re.Pattern[str] | None = None
    bounds: range | None = None

    def check(self, value: object, path: KeyPath, version: str) -> Iterator[Complaint]:
        is_other = not isinstance(value, self.type)
        is_flag = isinstance(value, bool) and self.type is not bool  # True is an int in Python
        is_outside = isinstance(value, int) and self.bounds and value not in self.bounds
        is_misshapen = isinstance(value, str) and self.pattern and not self.pattern.match(value)
        if is_other or is_flag or is_outside or is_misshapen:
            yield wrong_kind(value, path, self.words)


@dataclass(frozen=True, slots=True)
class Choice:
    """One of some strings, each with the version that added it."""

    options: Mapping[str, str]

    @property
    def words(self) -> str:
        return f"one of {', '.join(self.options)}"

    def check(self, value: object, path: KeyPath, version: str) -> Iterator[Complaint]:
        since = self.options.get(value) if isinstance(value, str) else None
        if since is not None and is_before(version, since):
            yield Complaint(path, too_new(f"{key_name(path)} = {show(value)}", since, version))
        elif since is None:
            known = [name for name, since in self.options.items() if not is_before(version, since)]
            yield wrong_kind(value, path, f"one of {', '.join(known)}")


@dataclass(frozen=True, slots=True)
class ListOf:
    kind: Kind

    @property
    def words(self) -> str:
        return f"a list of which each element is {self.kind.words}"

    def check(self, value: object, path: KeyPath, version: str) -> Iterator[Complaint]:
        if not isinstance(value, list):
            yield wrong_kind(value, path, self.words)
            return
        for index, element in enumerate(value):
            yield from self.kind.check(element, (*path, index), version)


@dataclass(frozen=True, slots=True)
class Key:
    kind: Kind
    since: str = "1"
    is_required: bool = False
    optional_since: str | None = None  # required before


@dataclass(frozen=True, slots=True)
class Table:
    """Known keys. Others are refused, or are the user's names for values of kind `rest`."""

    words: str
    keys: Mapping[str, Key] = field(default_factory=dict)
    rest: Kind | None = None
    hint: str = ""

    def check(self, value: object, path: KeyPath, version: str) -> Iterator[Complaint]:
        if not isinstance(value, dict):
            yield wrong_kind(value, path, self.words)
            return
        for name, element in value.items():
            yield from self.check_key(name, element, (*path, name), version)
        for name, key in self.keys.items():
            is_optional = not key.is_required or (
                key.optional_since is not None and not is_before(version, key.optional_since)
            )
            if not is_optional and name not in value:
                yield Complaint(path, f"{key_name(path)} has no {name}; {self.words} needs it.")

    def check_key(
        self, name: str, value: object, path: KeyPath, version: str
    ) -> Iterator[Complaint]:
        key = self.keys.get(name)
        if key is not None and is_before(version, key.since):
            yield Complaint(path, too_new(key_name(path), key.since, version))
        elif key is not None:
            yield from key.kind.check(value, path, version)
        elif self.rest is not None:
            yield from self.rest.check(value, path, version)
        else:
            known = [n for n, key in self.keys.items() if not is_before(version, key.since)]
            message = f"{key_name(path)} is not a key of {self.words}; known: {', '.join(known)}."
            yield Complaint(path, f"{message} {self.hint}".rstrip())


@dataclass(frozen=True, slots=True)
class Tagged:
    """A table of one of several shapes, chosen by the key that only one of them has."""

    words: str
    shapes: Mapping[str, Table]

    def check(self, value: object, path: KeyPath, version: str) -> Iterator[Complaint]:
        if not isinstance(value, dict):
            yield wrong_kind(value, path, self.words)
            return
        found = [tag for tag in self.shapes if tag in value]
        if len(found) == 1:
            yield from self.shapes[found[0]].check(value, path, version)
            return
        has = " and ".join(found) if found else "none of them"
        message = f"{key_name(path)} must have one of {', '.join(self.shapes)}; it has {has}."
        yield Complaint(path, message)


@dataclass(frozen=True, slots=True)
class PlainOr:
    """A plain value, or a list or table that says more."""

    plain: Kind
    other: Kind

    @property
    def words(self) -> str:
        return f"{self.plain.words}, or {self.other.words}"

    def check(self, value: object, path: KeyPath, version: str) -> Iterator[Complaint]:
        if isinstance(value, dict | list):
            yield from self.other.check(value, path, version)
        elif any(self.plain.check(value, path, version)):
            yield wrong_kind(value, path, self.words)


@dataclass(frozen=True, slots=True)
class Anything:
    words: str = "anything"

    def check(self, value: object, path: KeyPath, version: str) -> Iterator[Complaint]:
        yield from ()
