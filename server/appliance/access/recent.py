"""Remembers for a while who a token belongs to, by the token's hash."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from appliance.access.principal import Principal

MAX_ENTRIES = 4096


class RecentTokens:
    """The tokens that were judged last; a refused one is remembered as None."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._judged: OrderedDict[bytes, tuple[Principal | None, float]] = OrderedDict()

    def find(self, token: str) -> tuple[Principal | None] | None:
        """What was said of it, in a tuple, or None if it is not known or too long ago."""
        judged = self._judged.get(_digest(token))
        return None if judged is None or judged[1] <= self._now() else (judged[0],)

    def add(self, token: str, principal: Principal | None, until: float) -> None:
        self._judged[_digest(token)] = principal, until
        if len(self._judged) > MAX_ENTRIES:
            self._judged.popitem(last=False)

    def clear(self) -> None:
        self._judged = OrderedDict()


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="replace")).digest()
