"""A record holds what was found, says what is missing, and never follows an overwritten one."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from appliance.errors import ReleaseError
from appliance_release.locks.nar import hash_path
from appliance_release.pins.record import (
    PinRecord,
    hash_lock,
    hash_store_path,
    join_records,
    read_identity,
    read_record,
    record_path,
    write_record,
)
from appliance_release.pins.reference import parse_reference

REFERENCE = parse_reference("acme/llama-runtime:2")
PATH = "/nix/store/" + "0" * 32 + "-llama-server-0.1.0"
OTHER = "/nix/store/" + "1" * 32 + "-llama-model"
HASHES = {name: digit * 64 for name, digit in (("weights", "a"), ("tokenizer", "b"))} | {
    "template": None,
    "server": "c" * 64,
}


def record(**parts: Any) -> PinRecord:
    return PinRecord(reference=str(REFERENCE), **parts)


WHOLE = record(manifest_lock="d" * 64, store_paths={PATH: "sha256-x="}, identity=HASHES)


def test_a_record_is_written_and_read_alike(tmp_path: Path) -> None:
    path = write_record(tmp_path, REFERENCE, WHOLE)
    assert path == tmp_path / "pins" / "acme" / "llama-runtime" / "2.json"
    assert read_record(tmp_path, REFERENCE) == WHOLE
    assert hashlib.sha256(path.read_bytes()).hexdigest() == WHOLE.digest


def test_what_was_never_recorded_is_absent(tmp_path: Path) -> None:
    assert read_record(tmp_path, REFERENCE) is None
    assert record().missing == ["manifest.lock", "store paths", "identity"]
    assert record(store_paths={PATH: None}).missing[1] == "store paths"
    assert WHOLE.missing == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "2.json is not JSON"),
        ("[]", "2.json must hold a JSON object, not a list"),
        ('{"record": 1, "record": 1}', "holds the key 'record' twice"),
        ('{"record": 2}', "is not a record that this version reads"),
        ('{"record": 1, "reference": "a/b:1", "more": 1}', "parts that a record does not have"),
        ('{"record": 1, "reference": "a/b:1"}', "is the record of a/b:1, not of acme"),
        ('{"record": 1, "reference": "a/b:1", "store_paths": ["x"]}', "is damaged"),
        ('{"record": 1, "reference": "a/b:1", "identity": {"weights": "a"}}', "is damaged"),
        ('{"record": 1, "reference": "a/b:1", "manifest_lock": 1}', "is damaged"),
        ("[" * 100_000, "brackets nested too deep"),
    ],
)
def test_a_record_that_is_none_is_refused(text: str, said: str, tmp_path: Path) -> None:
    path = record_path(tmp_path, REFERENCE)
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(ReleaseError, match=said):
        read_record(tmp_path, REFERENCE)


def test_records_of_one_generation_add_up() -> None:
    parts = [
        record(manifest_lock="d" * 64, store_paths={PATH: None}),
        record(store_paths={PATH: "sha256-x="}),
        record(identity=HASHES),
        record(store_paths={PATH: None}),
    ]
    joined = None
    for part in parts:
        joined = join_records(joined, part)
    assert joined == WHOLE


@pytest.mark.parametrize(
    ("part", "name"),
    [
        ({"manifest_lock": "e" * 64}, "manifest.lock"),
        ({"store_paths": {PATH: "sha256-y="}}, PATH),
        ({"identity": HASHES | {"weights": "f" * 64}}, "weights"),
    ],
    ids=["lock", "store path", "weights"],
)
def test_a_generation_that_changed_is_refused(part: dict[str, Any], name: str) -> None:
    with pytest.raises(ReleaseError, match=f"was recorded with {name} .* and now it is .* Push a"):
        join_records(WHOLE, record(**part))


def test_a_manifest_lock_gives_its_hash_and_store_paths(tmp_path: Path) -> None:
    path = tmp_path / "manifest.lock"
    outputs = [{"outputs": {"out": PATH}}, {"outputs": {"out": OTHER, "dev": PATH}}, {}]
    path.write_text(json.dumps({"lockfile-version": 1, "packages": outputs}))
    assert hash_lock(path) == (hashlib.sha256(path.read_bytes()).hexdigest(), [PATH, OTHER])


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"packages": [1]}', '{"packages": 1}', "[" * 100_000]
)
def test_what_is_no_manifest_lock_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "manifest.lock"
    path.write_text(text)
    with pytest.raises(ReleaseError, match=r"is not a manifest.lock of Flox: .* \.flox/env/"):
        hash_lock(path)


def test_store_paths_are_hashed_where_they_are(tmp_path: Path) -> None:
    (tmp_path / PATH.removeprefix("/nix/store/")).write_text("bytes")
    found = hash_store_path(PATH, tmp_path)
    assert found == hash_path(tmp_path / PATH.removeprefix("/nix/store/"))
    assert hash_store_path(OTHER, tmp_path) is None


@pytest.mark.parametrize("text", ["/etc/passwd", PATH + "/../x", "llama", PATH + "/bin"])
def test_only_store_paths_are_hashed(text: str) -> None:
    with pytest.raises(ReleaseError, match="is not a store path"):
        hash_store_path(text)


def test_an_identity_is_what_version_answers() -> None:
    answer = json.dumps({"name": "llama-appliance", "hashes": HASHES | {"more": 1}})
    assert read_identity(answer, "standard input") == HASHES


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("", "standard input is not what GET /version answers"),
        ('{"hashes": null}', "Ask a server that is ready"),
        ('{"hashes": {"weights": "a"}}', "it has no hashes of weights, tokenizer, template, se"),
        (json.dumps({"hashes": HASHES | {"server": "c" * 12}}), "as hash of server; it must be"),
        (json.dumps({"hashes": HASHES | {"weights": None}}), "None as hash of weights"),
    ],
    ids=["nothing", "loading", "parts", "short", "absent"],
)
def test_what_is_no_identity_is_refused(answer: str, said: str) -> None:
    with pytest.raises(ReleaseError, match=said):
        read_identity(answer, "standard input")
