"""The expressions: they parse, use what they name, evaluate everywhere, hold no secret."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from tests.nix.local_nix import HERE, REPOSITORY, STATE, LocalNix, NixFailed
from tests.nix.nix_lint import lint

pytestmark = pytest.mark.nix

LISTED = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.nix"]
FILES = [
    REPOSITORY / name
    for name in subprocess.run(
        LISTED, cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout.split()
]
PACKAGES = sorted(path.stem for path in (REPOSITORY / "llama-build/.flox/pkgs").glob("*.nix"))
SYSTEMS = ("x86_64-linux", "aarch64-linux", "aarch64-darwin")
TOKEN = "hf_must-not-be-found"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_a_file_parses_and_uses_every_name_it_declares(nix: LocalNix, path: Path) -> None:
    nix.run("nix-instantiate", "--parse", path)

    assert lint(path) == []


def test_the_lint_finds_an_argument_and_a_binding_that_nobody_uses(tmp_path: Path) -> None:
    path = tmp_path / "unused.nix"
    path.write_text("{ lib, curl }: let a = 1; b = lib.id a; c = 2; in b", encoding="utf-8")

    assert [line.rsplit(":", 1)[1] for line in lint(path)] == [
        " curl is never used",
        " c is never used",
    ]


def test_every_file_among_the_packages_is_one(nix: LocalNix) -> None:
    """Flox takes each of them for a package: a helper there would break a bare `flox build`."""
    for name in PACKAGES:
        assert derivation(nix, name).endswith(".drv")


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_package_evaluates_on_a_system_it_names(nix: LocalNix, system: str) -> None:
    named = json.loads(
        evaluate(nix, f"builtins.mapAttrs (_: p: p.meta.platforms) {PACKAGE_SET}", system)
    )

    for name in PACKAGES:
        if system in named[name]:
            assert derivation(nix, name, system).endswith(".drv")
        else:
            with pytest.raises(NixFailed, match=f"no wheels of variant .* for {system}"):
                derivation(nix, name, system)


def test_no_derivation_holds_the_token_or_anything_else_of_the_environment(nix: LocalNix) -> None:
    with_token = replace(nix, environment={"HF_TOKEN": TOKEN})
    found = [derivation(with_token, name) for name in PACKAGES]

    closure = nix.run("nix-store", "--query", "--requisites", *found).splitlines()

    texts = [Path(path).read_text(encoding="utf-8") for path in closure if path.endswith(".drv")]
    assert len(texts) > len(PACKAGES)
    assert not [text for text in texts if TOKEN in text]
    assert found == [derivation(nix, name) for name in PACKAGES]


def test_every_download_is_pinned_by_a_sha256(nix: LocalNix) -> None:
    found = [derivation(nix, name) for name in PACKAGES]

    shown = json.loads(nix.run("nix", "show-derivation", "--recursive", *found))

    downloads = [
        each["outputs"]["out"] for each in shown.values() if "impureEnvVars" in each["env"]
    ]
    assert len(downloads) > 20
    assert all(re.fullmatch("[0-9a-f]{64}", each["hash"]) for each in downloads)


def test_a_model_of_a_local_folder_is_named_by_the_hashes_in_its_lock(nix: LocalNix) -> None:
    lock = json.loads((REPOSITORY / "llama-build/models/pebble.lock.json").read_bytes())
    for name, pin in lock["files"].items():
        found = evaluate(nix, f'toString {SET}.llama-model.files."{name}"')
        by_hash = nix.run("nix-store", "--print-fixed-path", "sha256", pin["sha256"], name)

        assert json.loads(found) == by_hash


SET = f"(import {HERE}/packages.nix {{ inherit system; standin = {STATE}/standin; }})"
PACKAGE_SET = f'(removeAttrs {SET} [ "serves" ])'


def evaluate(nix: LocalNix, expression: str, system: str = "x86_64-linux") -> str:
    text = f'let system = "{system}"; in {expression}'
    return nix.run("nix-instantiate", "--eval", "--strict", "--json", "-E", text)


def derivation(nix: LocalNix, name: str, system: str = "x86_64-linux") -> str:
    text = f'let system = "{system}"; in {SET}.{name}'
    return nix.run("nix-instantiate", "-E", text).removesuffix("!out")
