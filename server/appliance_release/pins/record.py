"""Binds a generation to hashes: of its manifest.lock, its store paths and its servers.

A hub can overwrite a generation under its number; the record keeps the first hashes. What was not
recorded is absent, never assumed.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from appliance.errors import ReleaseError
from appliance.models.hashing import is_sha256
from appliance_release.locks.lock_file import parse_object, read_object, write_whole
from appliance_release.locks.nar import hash_path

if TYPE_CHECKING:
    from collections.abc import Mapping

    from appliance_release.pins.reference import Reference

IDENTITY = ("weights", "tokenizer", "template", "server")
STORE = "/nix/store/"

_STORE_PATH = re.compile(r"/nix/store/[0-9a-z]{32}-[A-Za-z0-9+._?=-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class PinRecord:
    """`store_paths` maps each path to its NAR hash, or to None where it was not on the machine."""

    reference: str
    manifest_lock: str | None = None
    store_paths: dict[str, str | None] = field(default_factory=dict)
    identity: dict[str, str | None] = field(default_factory=dict)

    def text(self) -> str:
        return json.dumps({"record": 1, **asdict(self)}, indent=2, sort_keys=True) + "\n"

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.text().encode()).hexdigest()

    @property
    def missing(self) -> list[str]:
        """Lists the parts that are not recorded yet."""
        parts = {
            "manifest.lock": self.manifest_lock,
            "store paths": self.store_paths and all(self.store_paths.values()),
            "identity": self.identity,
        }
        return [name for name, value in parts.items() if not value]


def record_path(directory: Path, reference: Reference) -> Path:
    name = f"{reference.generation}.json"
    return directory / "pins" / reference.owner / reference.name / name


def read_record(directory: Path, reference: Reference) -> PinRecord | None:
    """Reads the record of a generation; None if there is none."""
    path = record_path(directory, reference)
    if not path.exists():
        return None
    facts = read_object(path)
    if facts.pop("record", None) != 1:
        raise ReleaseError(f"{path} is not a record that this version reads.")
    try:
        record = PinRecord(**facts)  # type: ignore[arg-type]  # _is_whole looks at each
    except TypeError:
        raise ReleaseError(f"{path} has parts that a record does not have.") from None
    if not _is_whole(record):
        raise ReleaseError(
            f"{path} is damaged: a part of it is of another kind than `appliance pin record` "
            "writes. Restore it from version control."
        )
    if record.reference != str(reference):
        raise ReleaseError(f"{path} is the record of {record.reference}, not of {reference}.")
    return record


def write_record(directory: Path, reference: Reference, record: PinRecord) -> Path:
    path = record_path(directory, reference)
    write_whole(path, record.text())
    return path


def join_records(old: PinRecord | None, new: PinRecord) -> PinRecord:
    """Joins two records; raises ReleaseError where they differ: a generation never changes."""
    if old is None:
        return new
    if old.manifest_lock and new.manifest_lock and old.manifest_lock != new.manifest_lock:
        raise _overwritten(new.reference, "manifest.lock", old.manifest_lock, new.manifest_lock)
    store_paths = _join(new.reference, old.store_paths, new.store_paths)
    identity = _join(new.reference, old.identity, new.identity)
    lock = new.manifest_lock or old.manifest_lock
    return replace(new, manifest_lock=lock, store_paths=store_paths, identity=identity)


def hash_lock(path: Path) -> tuple[str, list[str]]:
    """Returns the SHA-256 of a manifest.lock, and the store paths of its packages."""
    try:
        content = path.read_bytes()
        packages: Any = parse_object(content, path.name)["packages"]
        outputs = [list(package.get("outputs", {}).values()) for package in packages]
        paths = {str(path) for each in outputs for path in each}
    except OSError as error:
        raise ReleaseError(f"{path} cannot be read: {error.strerror}.") from None
    except (ReleaseError, KeyError, TypeError, AttributeError):
        raise ReleaseError(
            f"{path} is not a manifest.lock of Flox: it has no list of packages. "
            "It is in .flox/env/ of the environment."
        ) from None
    return hashlib.sha256(content).hexdigest(), sorted(paths)


def hash_store_path(text: str, store: Path = Path(STORE)) -> str | None:
    """Returns the NAR hash of a store path; None if it is not on this machine."""
    if not _STORE_PATH.fullmatch(text):
        raise ReleaseError(f"{text!r} is not a store path, such as {STORE}…-llama-server-0.1.0.")
    path = store / text.removeprefix(STORE)
    return hash_path(path) if path.is_symlink() or path.exists() else None


def read_identity(text: str, source: str) -> dict[str, str | None]:
    """Reads the hashes that GET /version answers or `appliance version --json` prints."""
    try:
        hashes: Any = parse_object(text.encode(), source)["hashes"]
        identity = {name: hashes[name] for name in IDENTITY}
    except (ReleaseError, KeyError, TypeError):
        raise ReleaseError(
            f"{source} is not what GET /version answers: it has no hashes of "
            f"{', '.join(IDENTITY)}. Ask a server that is ready."
        ) from None
    for name, digest in identity.items():
        if not (name == "template" and digest is None) and not is_sha256(digest):
            raise ReleaseError(f"{source} has {digest!r} as hash of {name}; it must be a SHA-256.")
    return identity


def read_identity_file(path: Path) -> dict[str, str | None]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ReleaseError(f"{path} cannot be read: {error}.") from None
    return read_identity(text, str(path))


def _is_whole(record: PinRecord) -> bool:
    parts: tuple[object, ...] = (record.store_paths, record.identity)
    values = [
        value for part in parts if isinstance(part, dict) for value in (*part, *part.values())
    ]
    return (
        all(isinstance(part, dict) for part in parts)
        and all(value is None or isinstance(value, str) for value in values)
        and set(record.identity) in (set(), set(IDENTITY))
        and (record.manifest_lock is None or is_sha256(record.manifest_lock))
    )


def _join(
    reference: str, old: Mapping[str, str | None], new: Mapping[str, str | None]
) -> dict[str, str | None]:
    joined = dict(old)
    for name, digest in new.items():
        known = joined.get(name)
        if known is not None and digest is not None and known != digest:
            raise _overwritten(reference, name, known, digest)
        joined[name] = known if digest is None else digest
    return joined


def _overwritten(reference: str, name: str, old: str, new: str) -> ReleaseError:
    return ReleaseError(
        f"{reference} was recorded with {name} {old}, and now it is {new}. A generation does not "
        "change: either it was overwritten on the hub, or these are hashes of another one. Push "
        "a new generation; delete the record only if it was wrong from the start."
    )
