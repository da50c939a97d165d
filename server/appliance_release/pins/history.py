"""The history of pins: who moved which one, when and why, in a chain that shows alterations."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING

from appliance.access.chain import ChainFile
from appliance.errors import ReleaseError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from appliance.access.chain import Link

OPTIONAL = frozenset({"before", "why", "record"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A change that somebody made, without its place in the chain."""

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


CHANGE_FIELDS = {field.name for field in fields(Change)}


class PinHistory:
    """One file of entries."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._chain = ChainFile(path, _is_change)

    def entries(self) -> list[Entry]:
        """Returns all entries in order; raises ReleaseError if the chain is broken."""
        return [_entry(link) for link in self._links()]

    def inspect(self, head: str | None = None) -> tuple[list[Entry], list[str]]:
        """Returns the readable entries and all faults. `head` is a hash that must be in them."""
        links, problems = self._inspect(head)
        return [_entry(link) for link in links], problems

    def append(self, change: Change) -> Entry:
        try:
            return _entry(self._chain.append(asdict(change), self._links))
        except OSError as error:
            raise ReleaseError(f"{self.path} cannot be written: {error.strerror}.") from None

    def _links(self) -> list[Link]:
        links, problems = self._inspect()
        if problems:
            raise ReleaseError(
                f"{problems[0]} Nothing is added to a history that was altered; "
                "`appliance pin history --verify` shows all that is wrong, and version control has "
                "the file as it was."
            )
        return links

    def _inspect(self, head: str | None = None) -> tuple[list[Link], list[str]]:
        try:
            return self._chain.inspect(head)
        except (OSError, UnicodeDecodeError) as error:
            raise ReleaseError(f"{self.path} cannot be read: {error}.") from None


def _entry(link: Link) -> Entry:
    return Entry(**link.as_dict())  # type: ignore[arg-type]  # _is_change looked at each of them


def _is_change(facts: Mapping[str, object]) -> bool:
    return facts.keys() == CHANGE_FIELDS and all(
        isinstance(value, str) or (value is None and name in OPTIONAL)
        for name, value in facts.items()
    )
