"""The whole set: the server with torch, served from the store, and every output built twice."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.nix.local_nix import HERE, STATE, LocalNix
from tests.nix.store_paths import build
from tests.nix.test_flake import OVERRIDE
from tests.nix.tree import copy_tree

pytestmark = pytest.mark.nix_full

OUTPUTS = ("llama-model", "llama-server-lean", "llama-server")
STANDIN = ("--arg", "standin", str(STATE / "standin"))
MIB = 2**20


@pytest.fixture(scope="module", autouse=True)
def torch(nix: LocalNix, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Bring torch's wheel into the store by pip, which also takes it from a folder on this machine.

    Its own index, which the package fetches it from, is often out of reach where tests run.
    """
    lock = json.loads((HERE / "../../llama-build/wheels.lock.json").read_bytes())
    wheels = lock["variants"]["cpu"]["x86_64-linux"]
    wheel = next(each for each in wheels if each["pname"] == "torch")
    name, sha256 = wheel["file"], wheel["sha256"]
    in_store = nix.run("nix-store", "--print-fixed-path", "sha256", sha256, name)
    if Path(in_store).exists():
        return
    directory = tmp_path_factory.mktemp("torch")
    (directory / "wanted.txt").write_text(
        f"torch=={wheel['version']} --hash=sha256:{sha256}\n", encoding="utf-8"
    )
    index = ["--extra-index-url", "https://download.pytorch.org/whl/cpu"]
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
    wanted = ["--requirement", f"{directory}/wanted.txt", "--dest", f"{directory}"]
    for extra in ([], index):
        if subprocess.run([*pip, *extra, *wanted], check=False).returncode == 0:
            break
    nix.run("nix-store", "--add-fixed", "sha256", directory / name)


@pytest.fixture(scope="module")
def built(nix: LocalNix, torch: None) -> dict[str, Path]:
    found = {}
    for name in OUTPUTS:
        started_at_s = time.monotonic()
        found[name] = build(nix, name)
        print(f"\n{name}: {found[name]} in {time.monotonic() - started_at_s:.0f} s")
    return found


def test_every_server_serves_the_model_from_the_store_without_a_network(
    nix: LocalNix, built: dict[str, Path]
) -> None:
    for name in OUTPUTS[1:]:
        assert nix.build(HERE / "packages.nix", *STANDIN, "-A", f"serves.{name}").exists()


def test_building_again_in_place_gives_the_same_bytes(
    nix: LocalNix, built: dict[str, Path]
) -> None:
    for name in OUTPUTS:
        nix.build(HERE / "packages.nix", *STANDIN, "-A", name, "--check")


def test_a_second_store_makes_the_same_bytes(
    nix: LocalNix, second_store: LocalNix, built: dict[str, Path]
) -> None:
    """Only the downloads are copied there; everything else is built anew."""
    for name in OUTPUTS:
        derivation = nix.run("nix-store", "--query", "--deriver", built[name])
        requisites = nix.run(
            "nix-store", "--query", "--requisites", "--include-outputs", derivation
        )
        downloads = [each for each in requisites.splitlines() if each.endswith(".whl")]
        if downloads:
            copy = ("nix", "copy", "--no-check-sigs", "--to", str(second_store.store))
            nix.run(*copy, *downloads, timeout_s=600)

    for name in OUTPUTS:
        again = second_store.build(HERE / "packages.nix", *STANDIN, "-A", name)
        hashes = [
            store.run("nix-store", "--query", "--hash", again) for store in (nix, second_store)
        ]
        print(f"\n{name}: {hashes[0]}")
        assert again == built[name]
        assert hashes[0] == hashes[1]


def test_the_closures_are_as_large_as_they_must_be(nix: LocalNix, built: dict[str, Path]) -> None:
    sizes = {}
    for name in OUTPUTS:
        closure = nix.run("nix-store", "--query", "--requisites", built[name]).splitlines()
        sizes[name] = sum(map(int, nix.run("nix-store", "--query", "--size", *closure).split()))
        print(f"\n{name}: closure of {sizes[name] / MIB:.0f} MiB")

    assert sizes["llama-server-lean"] < sizes["llama-server"] / 5


def test_the_flake_passes_its_own_checks(
    nix: LocalNix, built: dict[str, Path], tmp_path: Path
) -> None:
    nix.run("nix", "flake", "check", f"path:{copy_tree(tmp_path)}", *OVERRIDE, timeout_s=900)
