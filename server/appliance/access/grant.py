"""Reads what a caller is given: models, limits and priority, from a file of access control."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from appliance.access.principal import MAX_PRIORITY, MIN_PRIORITY, NO_LIMITS, Limits

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_COUNT = 10**9
LIMIT_FIELDS = ("requests_per_minute", "tokens_per_minute", "concurrent")
GRANT_FIELDS = frozenset({"models", "priority", *LIMIT_FIELDS})


class BadGrant(ValueError):
    """A field that is not as it must be; the message names it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What a caller may use, and how much of it."""

    models: frozenset[str] | None = None  # None: all
    limits: Limits = NO_LIMITS
    priority: int = 0

    def as_fields(self) -> dict[str, object]:
        """What differs from a grant without limits, for a file."""
        models = None if self.models is None else sorted(self.models)
        limits = {name: getattr(self.limits, name) for name in LIMIT_FIELDS}
        fields = {"models": models, **limits, "priority": self.priority or None}
        return {name: value for name, value in fields.items() if value is not None}


EVERYTHING = Grant()


def read_grant(fields: Mapping[str, object]) -> Grant:
    """Reads the fields of GRANT_FIELDS and ignores the others."""
    return Grant(
        models=_read_models(fields.get("models")),
        limits=Limits(**{name: _read_limit(name, fields.get(name)) for name in LIMIT_FIELDS}),
        priority=_read_int("priority", fields.get("priority"), MIN_PRIORITY, MAX_PRIORITY) or 0,
    )


def refuse_unknown(fields: Mapping[str, object], known: frozenset[str]) -> None:
    unknown = sorted(fields.keys() - known)
    if unknown:
        raise BadGrant(f"`{unknown[0][:40]}` is not known; known are {', '.join(sorted(known))}")


def read_text(name: str, value: object) -> str:
    if not isinstance(value, str) or not value:
        raise BadGrant(f"`{name}` must be a text")
    return value


def _read_models(value: object) -> frozenset[str] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not value or not all(isinstance(each, str) for each in value):
        raise BadGrant("`models` must be a list of names; leave it out for all models")
    return frozenset(value)


def _read_limit(name: str, value: object) -> int | None:
    return _read_int(name, value, 1, MAX_COUNT)


def _read_int(name: str, value: object, low: int, high: int) -> int | None:
    if value is None:
        return None
    if type(value) is not int or not low <= value <= high:
        raise BadGrant(f"`{name}` must be a whole number from {low} to {high}")
    return value
