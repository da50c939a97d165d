"""Reads and changes the file of keys: their hashes, and what each may do."""

from __future__ import annotations

import fcntl
import json
import os
import re
import stat
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from appliance.access.grant import (
    EVERYTHING,
    GRANT_FIELDS,
    BadGrant,
    Grant,
    read_grant,
    read_text,
    refuse_unknown,
)
from appliance.access.principal import Principal, salt_of
from appliance.access.secret import KEY_ID_CHARS, hash_secret, new_secret
from appliance.errors import AccessError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}", re.ASCII)
HASH = re.compile(r"[0-9a-f]{64}", re.ASCII)
MAX_FILE_BYTES = 50_000_000
KEY_FIELDS = frozenset({"name", "sha256", "created", "expires", "revoked"}) | GRANT_FIELDS


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One key, without the key."""

    name: str
    sha256: str
    created: datetime
    expires: datetime | None = None
    revoked: datetime | None = None
    grant: Grant = EVERYTHING

    @property
    def key_id(self) -> str:
        return self.sha256[:KEY_ID_CHARS]

    def status(self, now: datetime) -> str:
        if self.revoked is not None:
            return "revoked"
        return "expired" if self.expires is not None and self.expires <= now else "valid"

    def principal(self) -> Principal:
        return Principal(
            name=self.name,
            origin="key",
            cache_salt=salt_of("key", self.name),
            key_id=self.key_id,
            models=self.grant.models,
            limits=self.grant.limits,
            priority=self.grant.priority,
            expires_at=None if self.expires is None else self.expires.timestamp(),
        )


class KeyFile:
    """The keys in `path`. Changes hold a lock and replace the file as a whole."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> list[Key]:
        """All keys, in order; an AccessError says what is wrong with the file."""
        try:
            with self.path.open("rb") as file:
                status = os.fstat(file.fileno())
                data = file.read(MAX_FILE_BYTES + 1)
        except OSError as error:
            raise AccessError(
                f"{self.path} cannot be read: {error.strerror}. "
                f"`appliance key new NAME --keys {self.path}` makes a file with a first key."
            ) from None
        if status.st_mode & stat.S_IWOTH:
            raise AccessError(
                f"{self.path} can be written by everybody on this machine, who could add keys. "
                f"Run: chmod 600 {self.path}"
            )
        if len(data) > MAX_FILE_BYTES:
            raise AccessError(f"{self.path} is larger than {MAX_FILE_BYTES} bytes.")
        return list(_parse(self.path, data))

    def add(self, name: str, *, expires: datetime | None, grant: Grant) -> tuple[str, Key]:
        """Returns the new key and its entry. The key is not kept: it cannot be shown again."""
        if not NAME.fullmatch(name):
            raise AccessError(
                "The name of a key has 1 to 64 characters: letters, digits and . _ @ -, the first "
                "of them a letter or digit."
            )
        secret = new_secret()
        now = datetime.now(UTC).replace(microsecond=0)
        key = Key(name=name, sha256=hash_secret(secret), created=now, expires=expires, grant=grant)
        with self._changing() as keys:
            if any(each.name == name and each.status(now) == "valid" for each in keys):
                raise AccessError(
                    f"{self.path} has a valid key named {name}. Choose another name, or revoke it: "
                    f"appliance key revoke {name} --keys {self.path}"
                )
            keys[:] = [each for each in keys if each.name != name] + [key]
        return secret, key

    def revoke(self, name: str) -> Key:
        with self._changing() as keys:
            for index, key in enumerate(keys):
                if key.name == name and key.revoked is None:
                    now = datetime.now(UTC).replace(microsecond=0)
                    keys[index] = replace(key, revoked=now)
                    return keys[index]
            raise AccessError(
                f"{self.path} has no key named {name[:64]} that could be revoked. "
                f"`appliance key list --keys {self.path}` shows what there is."
            )

    @contextmanager
    def _changing(self) -> Iterator[list[Key]]:
        """The keys, to be changed; what the block leaves is written, unless it raises."""
        path = self.path.resolve()
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(path.with_name(f".{path.name}.lock"), os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            keys = self.read() if path.exists() else []
            yield keys
            _replace(path, write_keys(keys))
        finally:
            os.close(lock)


def write_keys(keys: list[Key]) -> str:
    """The text of a file of keys."""
    return json.dumps({"keys": [_as_fields(key) for key in keys]}, indent=2) + "\n"


def _as_fields(key: Key) -> dict[str, object]:
    times = {"created": key.created, "expires": key.expires, "revoked": key.revoked}
    written = {name: time.isoformat() for name, time in times.items() if time is not None}
    return {"name": key.name, "sha256": key.sha256, **written, **key.grant.as_fields()}


def _replace(path: Path, text: str) -> None:
    new = path.with_name(f".{path.name}.new")
    descriptor = os.open(new, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def _parse(path: Path, data: bytes) -> Iterator[Key]:
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise AccessError(f"{path} is not JSON: {str(error)[:100]}.") from None
    entries = content.get("keys") if isinstance(content, dict) and len(content) == 1 else None
    if not isinstance(entries, list):
        raise AccessError(f'{path} must be an object with a list: {{"keys": [...]}}.')
    names: set[str] = set()
    hashes: set[str] = set()
    for number, fields in enumerate(entries, start=1):
        try:
            key = _read_key(fields)
        except BadGrant as error:
            raise AccessError(f"{path}: key {number}: {error}.") from None
        if key.name in names or key.sha256 in hashes:
            raise AccessError(f"{path}: key {number}: its name or hash is there twice.")
        names.add(key.name)
        hashes.add(key.sha256)
        yield key


def _read_key(fields: object) -> Key:
    if not isinstance(fields, dict):
        raise BadGrant("it must be an object")
    refuse_unknown(fields, KEY_FIELDS)
    name, digest = read_text("name", fields.get("name")), fields.get("sha256")
    if not NAME.fullmatch(name):
        raise BadGrant("`name` must be 1 to 64 letters, digits and . _ @ -")
    if not isinstance(digest, str) or not HASH.fullmatch(digest):
        raise BadGrant("`sha256` must be 64 hexadecimal digits")
    created = _read_time("created", fields)
    return Key(
        name=name,
        sha256=digest,
        created=created or datetime.fromtimestamp(0, UTC),
        expires=_read_time("expires", fields),
        revoked=_read_time("revoked", fields),
        grant=read_grant(fields),
    )


def _read_time(name: str, fields: Mapping[str, object]) -> datetime | None:
    value = fields.get(name)
    if value is None:
        return None
    try:
        time = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        time = None
    if time is None or time.tzinfo is None:
        raise BadGrant(f"`{name}` must be a time with its zone, such as 2027-01-31T00:00:00+00:00")
    return time
