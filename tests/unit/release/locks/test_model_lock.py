"""Model locks: of a local folder, as text, and read back from strangers."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from appliance.cli.main import main
from appliance.errors import ApplianceError, ReleaseError
from appliance.models.directory import embedded_model_path, open_model
from appliance.models.hashing import FileHasher
from appliance_release.locks.model_lock import (
    content_revision,
    is_wanted,
    lock_directory,
    read_model_lock,
)

REPOSITORY = Path(__file__).parents[4]
PEBBLE = REPOSITORY / "llama-build" / "models" / "pebble.lock.json"


def valid() -> dict[str, Any]:
    return {
        "lock": 1,
        "name": "tiny",
        "repository": "demo/tiny",
        "revision": "0" * 40,
        "license": "mit",
        "source": None,
        "files": {"config.json": {"sha256": "a" * 64, "size": 2}},
    }


def test_a_lock_is_read_as_it_was_written(tmp_path: Path) -> None:
    (tmp_path / "tiny.lock.json").write_text(json.dumps(valid()))
    lock = read_model_lock(tmp_path / "tiny.lock.json")
    assert json.loads(lock.render()) == valid()
    assert lock.total_bytes == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"lock": 2}, "is not a model lock of version 1"),
        ({"name": "../up"}, "name is '../up'"),
        ({"repository": "tiny"}, "repository is 'tiny'"),
        ({"revision": "main"}, "revision is 'main'"),
        ({"license": None}, "license is None"),
        ({"source": 1}, "source must be"),
        ({"files": {}}, "pins nothing"),
        ({"files": {"../../etc/passwd": {}}}, "not a plain file name"),
        ({"files": {".hidden": {}}}, "not a plain file name"),
        ({"files": {"a": {"sha256": "A" * 64, "size": 1}}}, "64 small hex digits"),
        ({"files": {"a": {"sha256": "a" * 64, "size": True}}}, "without its size"),
        ({"files": {"a": {"sha256": "a" * 64, "size": -1}}}, "without its size"),
    ],
)
def test_a_lock_with_a_wrong_value_is_refused_by_name(
    change: dict[str, object], words: str, tmp_path: Path
) -> None:
    (tmp_path / "some.json").write_text(json.dumps(valid() | change))
    with pytest.raises(ReleaseError, match=r"some\.json") as raised:
        read_model_lock(tmp_path / "some.json")
    assert words in raised.value.message


def test_a_lock_that_is_no_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(ApplianceError, match=r"a\.json is not JSON"):
        read_model_lock(tmp_path / "a.json")


@pytest.mark.parametrize(
    "name",
    ["config.json", "LICENSE", "USE_POLICY.md", "README.md", "merges.txt", "tokenizer.model"],
)
def test_model_files_and_their_licences_are_wanted(name: str) -> None:
    assert is_wanted(name)


@pytest.mark.parametrize(
    "name",
    [
        "pytorch_model.bin",
        "pytorch_model.bin.index.json",
        "modeling.py",
        ".gitattributes",
        "a b.json",
        "model.lock.json",
        "training_args.bin",
        "original/params.json",
        "x.safetensors",
    ],
)
def test_pickles_code_and_leftovers_are_not(name: str) -> None:
    assert not is_wanted(name)


def test_the_lock_of_the_embedded_model_is_what_lies_in_the_repository(tmp_path: Path) -> None:
    again = ["lock", "model", str(embedded_model_path()), "--repository", "llama-appliance/pebble"]
    found = lock_directory(
        embedded_model_path(),
        repository="llama-appliance/pebble",
        lock_path=PEBBLE,
        hasher=FileHasher(),
    )
    expected = read_model_lock(PEBBLE)
    assert dict(found.files) == dict(expected.files), f"renew it: appliance {' '.join(again)}"
    assert found.revision == expected.revision
    assert (
        PEBBLE.parent.joinpath(expected.source or "").resolve() == embedded_model_path().resolve()
    )
    assert main([*again, "--out", str(tmp_path / "p.json")], {}) == 0
    assert read_model_lock(tmp_path / "p.json").license == expected.license == "mit"


def test_the_revision_of_a_folder_can_be_had_with_standard_tools() -> None:
    lock = read_model_lock(PEBBLE)
    names = " ".join(lock.files)
    command = f"sha256sum {names} | LC_ALL=C sort | sha256sum"
    run = subprocess.run(
        ["sh", "-c", command], cwd=embedded_model_path(), capture_output=True, text=True, check=True
    )
    assert run.stdout[:40] == lock.revision == content_revision(lock.files)


def test_a_locked_model_is_served_as_locked(tmp_path: Path) -> None:
    lock = read_model_lock(PEBBLE)
    for name in lock.files:
        (tmp_path / name).symlink_to(embedded_model_path() / name)
    (tmp_path / "model.lock.json").write_text(lock.render())
    assert open_model(tmp_path).is_locked


@pytest.mark.parametrize(
    ("folder", "name"),
    [("mine", "mine"), ("My model (2)", "My-model-2-"), ("_a.b", "a.b"), ("模型", "model")],
)
def test_a_folder_of_any_name_can_be_locked(folder: str, name: str, tmp_path: Path) -> None:
    shutil.copytree(embedded_model_path(), tmp_path / folder)
    out = tmp_path / "lock.json"
    assert main(["lock", "model", str(tmp_path / folder), "--out", str(out)]) == 0
    assert read_model_lock(out).repository == f"local/{name}"


def test_a_folder_that_is_no_model_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["lock", "model", str(tmp_path), "--out", str(tmp_path / "a")], {}) == 3
    assert "is empty" in capsys.readouterr().err


def test_a_name_that_is_neither_folder_nor_repository_is_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["lock", "model", "no-such-folder"], {}) == 4
    assert "neither a folder that exists nor a repository" in capsys.readouterr().err
