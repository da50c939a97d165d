"""Environments are found, and checked with their lock and env.json beside the manifest."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from appliance.errors import SettingsError
from appliance_release.flox.check import check_environment, find_manifests
from tests.unit.release.flox.flox_manifests import BUILD, CUDA, REPOSITORY, RUNTIME, errors, lay_out


@pytest.mark.parametrize("manifest", [RUNTIME, CUDA], ids=["runtime", "cuda"])
def test_our_environments_have_no_error_and_lack_only_their_lock(manifest: Path) -> None:
    findings = check_environment(manifest)
    assert [each.file.name for each in findings] == ["manifest.lock"]
    assert errors(findings) == []


def test_the_environment_that_builds_the_packages_has_no_error() -> None:
    (manifest,) = find_manifests(REPOSITORY / "llama-build")
    assert errors(check_environment(manifest)) == []


def test_environments_are_found_at_and_below_a_directory() -> None:
    assert find_manifests(REPOSITORY / "llama-runtime") == [RUNTIME, CUDA]
    assert find_manifests(CUDA) == [CUDA]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "env.json is missing"),
        ("{", "env.json is not JSON"),
        ('{"name": "a b", "version": 1}', 'name is "a b"'),
        ("[]", "must hold a JSON object"),
        ('{"name": "unit", "version": 2}', "version is 2"),
    ],
)
def test_a_broken_env_json_is_refused(tmp_path: Path, text: str | None, says: str) -> None:
    file = lay_out(tmp_path, BUILD)
    description = file.parent.parent / "env.json"
    description.unlink() if text is None else description.write_text(text)
    (found,) = check_environment(file)
    assert (found.file, found.severity) == (description, "error")
    assert says in found.message


def test_a_lock_that_lacks_a_package_is_a_warning(tmp_path: Path) -> None:
    file = lay_out(tmp_path, BUILD.replace("[install]", '[install]\njq.pkg-path = "jq"'))
    (found,) = check_environment(file)
    assert (found.severity, found.key, found.file.name) == (
        "warning",
        "install.jq",
        "manifest.lock",
    )
    assert "older than the manifest" in found.message


@pytest.mark.parametrize(
    "text",
    ["{", "[" * 100_000, "[]", '{"lockfile-version": 2}'],
    ids=["cut", "deep", "list", "version"],
)
def test_a_lock_that_flox_has_not_written_is_refused(tmp_path: Path, text: str) -> None:
    file = lay_out(tmp_path, BUILD)
    (file.parent / "manifest.lock").write_text(text)
    (found,) = check_environment(file)
    assert (found.file.name, found.severity) == ("manifest.lock", "error")


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    file = lay_out(tmp_path, BUILD)
    file.write_bytes(b"\xff\xfe")
    (found,) = check_environment(file)
    assert "cannot be read" in found.message


def test_a_package_file_with_the_name_of_a_build_is_refused(tmp_path: Path) -> None:
    file = lay_out(tmp_path, BUILD)
    package = file.parent.parent / "pkgs" / "notes.nix"
    package.parent.mkdir()
    package.write_text("{ stdenv }: stdenv.mkDerivation { }")
    (found,) = check_environment(file)
    assert (found.file, found.severity) == (package, "error")
    assert "[build]" in found.message


def test_a_manifest_is_checked_with_its_environment_from_wherever_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = lay_out(tmp_path, BUILD)
    (file.parent.parent / "env.json").unlink()
    monkeypatch.chdir(file.parent)
    (found,) = check_environment(Path("manifest.toml"))
    assert (found.file.name, found.file.exists()) == ("env.json", False)


def test_a_manifest_alone_is_checked_without_its_environment(tmp_path: Path) -> None:
    file = tmp_path / "manifest.toml"
    file.write_text(BUILD)
    assert check_environment(file) == []


def test_a_path_without_environments_is_said_to_have_none(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="holds no Flox environment"):
        find_manifests(tmp_path)
    with pytest.raises(SettingsError, match="does not exist"):
        find_manifests(tmp_path / "absent")


def test_a_finding_reads_like_a_compilers_and_holds_what_programs_want(tmp_path: Path) -> None:
    file = tmp_path / "manifest.toml"
    file.write_text("version = 1\nvars.PORT = 1\n")
    (found,) = check_environment(file)
    assert str(found).startswith(f"{file}:2: error: vars.PORT is 1;")
    assert json.dumps({"key": found.key, "line": found.line}) == '{"key": "vars.PORT", "line": 2}'
