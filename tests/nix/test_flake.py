"""The flake: complete, pinned, and the same packages as Flox builds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.nix.local_nix import REPOSITORY, STATE, LocalNix
from tests.nix.test_expressions import PACKAGES, derivation
from tests.nix.tree import copy_tree

pytestmark = pytest.mark.nix

OVERRIDE = ("--no-write-lock-file", "--override-input", "nixpkgs", f"path:{STATE}/standin")


@pytest.fixture(scope="module")
def flake(nix: LocalNix, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A copy without history, so that no test depends on what is committed."""
    assert nix.store is None
    return f"path:{copy_tree(tmp_path_factory.mktemp('flake'))}"


def test_every_output_of_the_flake_evaluates_on_every_system(nix: LocalNix, flake: str) -> None:
    nix.run("nix", "flake", "check", "--no-build", flake, *OVERRIDE)

    shown = json.loads(nix.run("nix", "flake", "show", "--json", flake, *OVERRIDE))
    assert set(shown) == {"apps", "checks", "devShells", "formatter", "packages"}
    linux = shown["packages"]["x86_64-linux"]
    assert {*linux} == {*PACKAGES, "default"}
    assert {*shown["checks"]["x86_64-linux"]} == {"llama-server", "llama-server-lean"}


def test_the_flake_and_flox_make_the_same_derivations(nix: LocalNix, flake: str) -> None:
    for name in PACKAGES:
        attribute = f"{flake}#packages.x86_64-linux.{name}.drvPath"
        assert nix.run("nix", "eval", "--raw", attribute, *OVERRIDE) == derivation(nix, name)


def test_an_app_starts_a_program_of_its_package(nix: LocalNix, flake: str) -> None:
    app = json.loads(nix.run("nix", "eval", "--json", f"{flake}#apps.x86_64-linux", *OVERRIDE))

    assert set(app) == {*PACKAGES, "default"} - {"llama-model"}
    assert app["llama-release"]["program"].endswith("-0.1.0/bin/appliance")
    for name in ("llama-server", "llama-server-lean", "llama-server-cuda"):
        assert app[name]["type"] == "app"
        assert app[name]["program"].endswith("-0.1.0/bin/llama-server")
        assert app[name]["meta"]["description"]  # or a newer Nix warns


def test_the_lock_pins_every_input_of_the_flake_to_a_commit_and_a_hash(
    nix: LocalNix, flake: str
) -> None:
    metadata = json.loads(nix.run("nix", "flake", "metadata", "--json", flake))

    nodes = json.loads((REPOSITORY / "flake.lock").read_bytes())["nodes"]
    assert metadata["locks"]["nodes"] == nodes
    assert set(nodes["root"]["inputs"]) == {"nixpkgs"}
    pin = nodes["nixpkgs"]["locked"]
    assert len(pin["rev"]) == 40
    assert pin["narHash"].startswith("sha256-")


def test_a_lock_that_does_not_fit_the_flake_is_noticed(
    nix: LocalNix, flake: str, tmp_path: Path
) -> None:
    changed = copy_tree(tmp_path)
    text = (changed / "flake.nix").read_text(encoding="utf-8")
    (changed / "flake.nix").write_text(text.replace("nixos-26.05", "nixos-99.11"), encoding="utf-8")
    unchanged = nix.try_run("nix", "flake", "lock", "--no-update-lock-file", flake)

    result = nix.try_run("nix", "flake", "lock", "--no-update-lock-file", f"path:{changed}")

    assert unchanged.returncode == 0
    assert result.returncode != 0


def test_a_second_model_is_a_lock_and_one_line(nix: LocalNix, tmp_path: Path) -> None:
    tree = copy_tree(tmp_path)
    lock = json.loads((tree / "llama-build/models/pebble.lock.json").read_bytes())
    second = lock | {"name": "second", "repository": "demo/second", "source": None}
    (tree / "llama-build/models/second.lock.json").write_text(json.dumps(second), encoding="utf-8")
    (tree / "llama-build/.flox/pkgs/second-model.nix").write_text(
        "{ llama-model }: llama-model.override { lockFile = ../../models/second.lock.json; }",
        encoding="utf-8",
    )

    packages = f"path:{tree}#packages.x86_64-linux"
    names = [
        nix.run("nix", "eval", "--raw", f"{packages}.{each}.name", *OVERRIDE)
        for each in ("llama-model", "second-model")
    ]

    revision = lock["revision"][:12]
    assert names == [f"llama-model-pebble-{revision}", f"llama-model-second-{revision}"]
