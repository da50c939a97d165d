"""Which files of `.flox/pkgs` are packages, and which would make a bare `flox build` fail."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance_release.flox.packages import check_packages, find_packages, shape_of

PACKAGE = '{ lib, stdenv }:\nstdenv.mkDerivation { name = "a"; }\n'
HELPER = "{ lib }: { name, hash }: lib.warn name hash\n"


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def said(folder: Path, **builds: object) -> list[tuple[str, str]]:
    return [
        (path.relative_to(folder).as_posix(), complaint.message)
        for path, complaint in check_packages(folder, builds)
    ]


def test_packages_are_files_directories_and_sets_of_them(tmp_path: Path) -> None:
    names = ["a.nix", "b/default.nix", "b/helper.nix", "c/d/default.nix", "flake.nix", "notes.md"]
    write(tmp_path, dict.fromkeys(names, PACKAGE))
    assert [each.name for each in find_packages(tmp_path)] == ["a", "b", "c.d"]


def test_an_environment_without_packages_has_nothing_to_say(tmp_path: Path) -> None:
    assert said(tmp_path / "pkgs") == []


def test_a_package_that_is_not_in_utf_8_is_read_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "a.nix").write_bytes(b"# caf\xe9\n" + HELPER.encode())
    assert "a function that returns a function" in said(tmp_path)[0][1]


def test_packages_that_import_from_outside_of_the_folder_pass(tmp_path: Path) -> None:
    write(
        tmp_path, {"nix/server.nix": HELPER, "pkgs/a.nix": "{ lib }: import ../nix/server.nix {}"}
    )
    write(tmp_path, {"pkgs/b/default.nix": "{ lib }: import ./helper.nix {}"})
    write(tmp_path, {"pkgs/b/helper.nix": HELPER})
    assert said(tmp_path / "pkgs") == []


def test_a_helper_that_another_file_imports_is_refused(tmp_path: Path) -> None:
    write(tmp_path, {"fetch.nix": PACKAGE, "a.nix": "{ lib }:\nimport ./fetch.nix { }"})
    ((file, message),) = said(tmp_path)
    assert file == "fetch.nix"
    assert "imported by a.nix" in message
    assert "Move it out of .flox/pkgs" in message


def test_a_function_of_a_function_is_refused(tmp_path: Path) -> None:
    write(tmp_path, {"mkWeights.nix": HELPER})
    ((file, message),) = said(tmp_path)
    assert file == "mkWeights.nix"
    assert "a function that returns a function" in message


def test_a_file_that_is_shadowed_by_a_directory_is_refused(tmp_path: Path) -> None:
    write(tmp_path, {"a.nix": PACKAGE, "a/default.nix": PACKAGE})
    ((file, message),) = said(tmp_path)
    assert file == "a.nix"
    assert "a/default.nix, which wins silently" in message


def test_a_name_that_a_build_has_too_is_refused(tmp_path: Path) -> None:
    ((_, message),) = said(write(tmp_path, {"a.nix": PACKAGE}), a={"command": "true"})
    assert "defined in [build] and in a.nix" in message


def test_a_dot_in_a_name_is_a_warning(tmp_path: Path) -> None:
    write(tmp_path, {"qwen3.5.nix": PACKAGE})
    ((_, complaint),) = check_packages(tmp_path, {})
    assert complaint.severity == "warning"
    assert "qwen3.5.nix: Nix reads the dot" in complaint.message


@pytest.mark.parametrize(
    "text",
    [
        PACKAGE,
        "# a comment: of two\n{ a, b ? { }, ... } @ args: a.mkDerivation { }",
        "{ a }: let x = y: y; in a",
        "{ a }: a // { b = c: d; }",
        "import ../nix/a.nix",
        "args@{ a, ... }: a.override { }",
        "let a = 1; in a",
    ],
)
def test_what_may_be_a_package_passes(text: str) -> None:
    assert shape_of(text) is None


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        (HELPER, "a function that returns a function"),
        ("{ lib, ... }:\n/* why: */ name: lib.warn name", "a function that returns a function"),
        ("name: hash: name", "a function that returns a function"),
        ("{ lib }: rec { mk = a: a; }", "a function that returns a set"),
        ("{ a = 1; }", "a set"),
    ],
)
def test_what_is_never_a_package_is_named(text: str, shape: str) -> None:
    assert shape_of(text) == shape
