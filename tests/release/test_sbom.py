"""`appliance sbom`: valid CycloneDX, complete, and the same every time."""

from __future__ import annotations

import json
import shutil
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from appliance.cli.main import main
from appliance.models.directory import embedded_model_path
from appliance_release.locks.model_lock import read_model_lock
from appliance_release.locks.nix_store import NixStore
from tests.release.conftest import PEBBLE


def bill(
    capsys: pytest.CaptureFixture[str], *paths: Path, extra: tuple[str, ...] = ()
) -> dict[str, Any]:
    """What the command prints, once it has passed the published schema."""
    assert main(["sbom", *map(str, paths), *extra], {}) == 0
    text = capsys.readouterr().out
    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    assert error is None, error
    found = json.loads(text)
    assert isinstance(found, dict)
    return found


def by_name(found: dict[str, Any]) -> dict[str, Any]:
    return {component["name"]: component for component in found["components"]}


@pytest.fixture
def hub_lock(tmp_path: Path) -> Path:
    text = PEBBLE.read_text().replace('"../../server/appliance/embedded"', "null")
    path = tmp_path / "tiny.lock.json"
    path.write_text(text.replace("llama-appliance/pebble", "demo/tiny"))
    return path


def test_a_model_says_revision_licence_architecture_and_the_hash_of_each_file(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lock = read_model_lock(PEBBLE)
    (model,) = bill(capsys, PEBBLE)["components"]
    assert model["type"] == "machine-learning-model"
    assert (model["group"], model["name"], model["version"]) == (
        "llama-appliance",
        "pebble",
        lock.revision,
    )
    assert model["licenses"] == [{"license": {"name": "mit"}}]
    assert model["modelCard"]["modelParameters"] == {
        "task": "text-generation",
        "architectureFamily": "llama",
        "modelArchitecture": "LlamaForCausalLM",
        "inputs": [{"format": "text"}],
        "outputs": [{"format": "text"}],
    }
    hashes = {file["name"]: file["hashes"][0]["content"] for file in model["components"]}
    assert hashes == {name: pin.sha256 for name, pin in lock.files.items()}


def test_a_model_of_the_hub_has_a_package_url_and_its_address(
    hub_lock: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (model,) = bill(capsys, hub_lock)["components"]
    revision = read_model_lock(hub_lock).revision
    assert model["purl"] == f"pkg:huggingface/demo/tiny@{revision}"
    assert model["externalReferences"][0]["url"].endswith(f"/demo/tiny/tree/{revision}")


def test_a_model_directory_gives_what_its_lock_gives(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = tmp_path / "pebble"
    shutil.copytree(embedded_model_path(), directory)
    unlocked = by_name(bill(capsys, directory))["pebble"]
    (directory / "model.lock.json").write_text(PEBBLE.read_text())
    locked = by_name(bill(capsys, directory))["pebble"]
    assert unlocked["version"] == locked["version"]
    assert unlocked["licenses"] == locked["licenses"]
    assert locked["bom-ref"] == by_name(bill(capsys, PEBBLE))["pebble"]["bom-ref"]


def test_an_environment_lists_its_packages_with_licences(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = by_name(bill(capsys, Path(sys.prefix)))
    assert found["fastapi"]["licenses"] == [{"expression": "MIT"}]
    assert found["fastapi"]["purl"].startswith("pkg:pypi/fastapi@")
    assert "llama-appliance" in found


def test_a_version_keeps_the_build_it_names(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    version = metadata.version("torch")  # "2.13.0+cpu" on Linux
    found = by_name(bill(capsys, Path(sys.prefix)))["torch"]["purl"]
    assert found == f"pkg:pypi/torch@{version.replace('+', '%2B')}"


def test_the_same_parts_give_the_same_bytes(capsys: pytest.CaptureFixture[str]) -> None:
    paths = [Path(sys.prefix), PEBBLE]
    first, second = (json.dumps(bill(capsys, *paths)) for _ in range(2))
    assert first == second
    assert "timestamp" not in first


def test_another_part_gives_another_serial_number(
    hub_lock: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    numbers = {bill(capsys, path)["serialNumber"] for path in (PEBBLE, hub_lock)}
    assert len(numbers) == 2


def test_the_time_is_said_when_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    found = bill(capsys, PEBBLE, extra=("--timestamp",))
    assert found["metadata"]["timestamp"].endswith("+00:00")
    assert found["serialNumber"] == bill(capsys, PEBBLE)["serialNumber"]


def test_a_file_is_written_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "sbom.json"
    assert main(["sbom", str(PEBBLE), "--out", str(out)], {}) == 0
    assert capsys.readouterr().out == f"wrote {out}\n"
    assert json.loads(out.read_text()) == bill(capsys, PEBBLE)


@pytest.mark.parametrize(
    ("name", "words"), [("absent", "does not exist"), ("empty", "cannot have a bill")]
)
def test_what_is_no_part_is_refused(
    name: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    assert main(["sbom", str(tmp_path / name)], {}) == 4
    assert words in capsys.readouterr().err


@pytest.mark.nix
def test_a_store_path_lists_its_closure_with_hashes_packages_and_models(
    server: Path, nix_store: NixStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    link = tmp_path / "result"
    link.symlink_to(server)
    document = bill(capsys, link)
    found = by_name(document)
    assert set(found) == {"tiny-server", "library", "model", "Some_Thing", "pebble"}
    assert found["library"]["version"] == "1.2"
    assert found["Some_Thing"]["purl"] == "pkg:pypi/some-thing@1.0%2Bcpu"
    hashes = {entry.path: f"sha256:{entry.nar_sha256}" for entry in nix_store.closure(str(server))}
    for name in ("tiny-server", "library", "model"):
        component = found[name]
        assert component["properties"][0]["value"] == hashes[component["bom-ref"]]
    needs = {each["ref"]: each["dependsOn"] for each in document["dependencies"]}
    top = found["tiny-server"]["bom-ref"]
    assert needs["root"] == [top]
    others = [found[name]["bom-ref"] for name in ("library", "model", "Some_Thing")]
    assert needs[top] == sorted(others)
    assert needs[found["model"]["bom-ref"]] == [found["pebble"]["bom-ref"]]
    assert document["metadata"]["component"]["name"] == "tiny-server-0.1"
