"""Tells who a credential belongs to: the interface of all ways to do so, and that of keys."""

from __future__ import annotations

import hmac
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

from appliance.access.key_file import KeyFile
from appliance.access.secret import hash_secret, is_well_formed
from appliance.access.watched_file import WatchedFile

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from appliance.access.principal import Principal

HALF = 32  # of the 64 digits of a hash


class Authenticator(Protocol):
    """One way to know callers. Called on the event loop; a slow one works in a thread."""

    async def authenticate(self, credential: str) -> Principal | None:
        """The owner of the credential, or None if it is not of this kind or not valid."""

    def is_revoked(self, principal: Principal) -> bool:
        """Whether a principal that was returned once has lost its access since."""

    def refresh(self) -> None:
        """Reads its files again if they changed. Called once a second, in a thread."""


class KeyRing:
    """Knows the callers of a file of keys.

    A key is looked up by the first half of its hash, and the whole hash is then compared in
    constant time: how long a refusal takes says nothing about any key.
    """

    def __init__(self, path: Path, now: Callable[[], float] = time.time) -> None:
        self._file = KeyFile(path)
        self._now = now
        self._principals: Mapping[str, tuple[str, Principal]] = {}
        self._key_ids: frozenset[str | None] = frozenset()
        self._watched = WatchedFile(path, self._load)
        self._watched.start()

    async def authenticate(self, credential: str) -> Principal | None:
        if not is_well_formed(credential):
            return None
        digest = hash_secret(credential)
        found = self._principals.get(digest[:HALF])
        if found is None or not hmac.compare_digest(digest, found[0]):
            return None
        return None if self._is_expired(found[1]) else found[1]

    def is_revoked(self, principal: Principal) -> bool:
        if principal.origin != "key":
            return False
        return self._is_expired(principal) or principal.key_id not in self._key_ids

    def refresh(self) -> None:
        self._watched.refresh()

    def _load(self) -> None:
        now = datetime.fromtimestamp(self._now(), UTC)
        valid = [key for key in self._file.read() if key.status(now) == "valid"]
        self._principals = {key.sha256[:HALF]: (key.sha256, key.principal()) for key in valid}
        self._key_ids = frozenset(key.key_id for key in valid)

    def _is_expired(self, principal: Principal) -> bool:
        return principal.expires_at is not None and principal.expires_at <= self._now()
