"""Names the caller of a request: what it may use, how much, and with whom it shares a cache."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

Origin = Literal["anonymous", "key", "jwt", "kubernetes"]

MIN_PRIORITY, MAX_PRIORITY = -100, 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much a caller may ask for; None is as much as the server can do."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent: int | None = None  # answers at the same time


NO_LIMITS = Limits()


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """A caller. `name` is unique among those of one origin; limits and caches belong to both."""

    name: str
    origin: Origin
    cache_salt: bytes  # computed prompts are shared between requests of this principal alone
    key_id: str | None = None  # which credential it showed, for the audit log
    models: frozenset[str] | None = None  # None: all
    limits: Limits = NO_LIMITS
    priority: int = 0  # higher goes first
    expires_at: float | None = None  # in Unix time

    @property
    def owner(self) -> str:
        """One name for all that belongs to this caller, distinct across origins."""
        return f"{self.origin}:{self.name}"

    def may_use(self, model: str) -> bool:
        return self.models is None or model in self.models


def salt_of(origin: Origin, name: str) -> bytes:
    return hashlib.sha256(f"principal\0{origin}\0{name}".encode()).digest()


def anonymous(credential: bytes = b"") -> Principal:
    """The caller of a server without access control. What it sends as a credential is not checked,
    but separates caches: a gateway in front may have checked it.
    """
    if not credential:
        return ANONYMOUS
    salt = hashlib.sha256(b"credential\0" + credential).digest()
    return Principal(name="anonymous", origin="anonymous", cache_salt=salt)


ANONYMOUS = Principal(
    name="anonymous", origin="anonymous", cache_salt=salt_of("anonymous", "anonymous")
)
