"""Reads references to a generation of a Flox environment: OWNER/NAME:GENERATION."""

from __future__ import annotations

import re
from dataclasses import dataclass

from appliance.errors import ReleaseError

ANNOTATION = "flox.dev/environment"
EXAMPLE = "acme/llama-runtime:2"

# Records are in folders of these names, so neither may be `.` or `..`.
_PART = r"(?!\.{1,2}(?![A-Za-z0-9._-]))[A-Za-z0-9._-]+"
_ENVIRONMENT = re.compile(rf"{_PART}/{_PART}")
_PINNED = re.compile(rf"({_PART})/({_PART}):([1-9][0-9]{{0,17}})")


@dataclass(frozen=True, slots=True)
class Reference:
    """One generation, which a pod runs even if another is live on FloxHub."""

    owner: str
    name: str
    generation: int

    def __str__(self) -> str:
        return f"{self.environment}:{self.generation}"

    @property
    def environment(self) -> str:
        return f"{self.owner}/{self.name}"

    def at(self, generation: int) -> Reference:
        return Reference(self.owner, self.name, generation)


def parse_reference(text: str) -> Reference:
    """Parses a pinned reference; the error for any other says how to pin it."""
    match = _PINNED.fullmatch(text)
    if match is None:
        raise ReleaseError(f"{text!r} {why_not_pinned(text)}")
    owner, name, generation = match.groups()
    return Reference(owner, name, int(generation))


def why_not_pinned(text: object) -> str | None:
    """Returns the fault of an annotation's value and its remedy; None if it is pinned."""
    if not isinstance(text, str):
        return f'is not a string. Write it in quotes, as in "{EXAMPLE}".'
    if _PINNED.fullmatch(text):
        return None
    environment, separator, generation = text.partition(":")
    if "@" in text:
        right = text.replace("@", ":")
        return f'has "@", which Flox does not read. A generation follows a colon: "{right}".'
    if not _ENVIRONMENT.fullmatch(environment):
        return f'is not OWNER/NAME:GENERATION. Write it as in "{EXAMPLE}".'
    if not separator:
        return (
            "names no generation, so each start of a pod runs what is live then. "
            f'Pin one: "{environment}:2".'
        )
    return (
        f'has {generation!r} for a generation, which is a number from 1 on. Pin one: "'
        f'{environment}:2".'
    )
