"""`appliance pin record`: binds a generation to its lock, store paths and hashes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.console.terminal import Terminal
from appliance_release.cli.parts import add_part

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from appliance.cli.parsing import ArgumentParser, Commands
    from appliance_release.pins.record import PinRecord


def add_record(parts: Commands) -> ArgumentParser:
    record = add_part(parts, "record", run_record, summary="bind a generation to its hashes")
    record.add_argument(
        "generation", help="OWNER/NAME:N, or an overlay: the generation it is pinned to"
    )
    record.add_argument(
        "--manifest-lock",
        type=Path,
        metavar="FILE",
        help="the environment's .flox/env/manifest.lock; the store paths in it are hashed, too",
    )
    record.add_argument(
        "--store-path", action="append", default=[], metavar="PATH", help="a further store path"
    )
    record.add_argument(
        "--identity",
        metavar="FILE",
        help="what GET /version of a server of this generation answers; - for standard input",
    )
    return record


def run_record(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from appliance.errors import ReleaseError
    from appliance_release.pins.directory import PinDirectory, parse_pin
    from appliance_release.pins.overlay_pin import find_pin
    from appliance_release.pins.reference import parse_reference

    if "/" in arguments.generation:
        reference = parse_reference(arguments.generation)
    else:
        reference = parse_pin(find_pin(arguments.directory, arguments.generation))
    found = _found(arguments, str(reference))
    if not (found.manifest_lock or found.store_paths or found.identity):
        raise ReleaseError(
            "There is nothing to record. Give --manifest-lock, --store-path or --identity."
        )
    path, record = PinDirectory.open(arguments.directory, arguments.why).record(reference, found)
    print(f"{path}: {record_state(record)}")
    for store_path, digest in record.store_paths.items():
        print(f"  {digest or 'not on this machine: no hash'}  {store_path}")
    return 0


def record_state(record: PinRecord | None) -> str:
    if record is None:
        return "not recorded"
    return f"recorded without {', '.join(record.missing)}" if record.missing else "recorded"


def _found(arguments: argparse.Namespace, reference: str) -> PinRecord:
    from appliance_release.pins.record import (
        PinRecord,
        hash_lock,
        hash_store_path,
        read_identity,
        read_identity_file,
    )

    digest, paths = None, set(arguments.store_path)
    if arguments.manifest_lock is not None:
        digest, locked = hash_lock(arguments.manifest_lock)
        paths |= set(locked)
    identity: dict[str, str | None] = {}
    if arguments.identity == "-":
        identity = read_identity(sys.stdin.read(), "standard input")
    elif arguments.identity is not None:
        identity = read_identity_file(Path(arguments.identity))
    store_paths = {}
    for path in sorted(paths):
        with Terminal(sys.stderr).counting(f"hashing {path}"):
            store_paths[path] = hash_store_path(path)
    return PinRecord(
        reference=reference, manifest_lock=digest, store_paths=store_paths, identity=identity
    )
