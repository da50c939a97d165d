"""The lean server as a package: built offline, whole in itself, answering from the store."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.nix.local_nix import COMMAND_TIMEOUT_S, HERE, REPOSITORY, STATE, LocalNix
from tests.nix.store_paths import build

pytestmark = pytest.mark.nix

# What Flox's `dev` mode and careless shells set: none of it may reach the server.
FOREIGN = {"PYTHONPATH": "/nowhere", "PYTHONHOME": "/nowhere", "PYTHONSTARTUP": "/nowhere"}


@pytest.fixture(scope="module")
def server(nix: LocalNix) -> Path:
    return build(nix, "llama-server-lean")


def run(program: Path, *arguments: str | Path, **environ: str) -> str:
    """With nothing on the PATH, as in a pod without an image."""
    return subprocess.run(
        [program, *arguments],
        env={"PATH": "/nonexistent", **environ},
        capture_output=True,
        text=True,
        check=True,
        timeout=COMMAND_TIMEOUT_S,
    ).stdout


def test_its_programs_need_nothing_of_the_environment(server: Path) -> None:
    assert "Llama Appliance 0.1.0" in run(server / "bin" / "appliance", "--version", **FOREIGN)
    assert "--model" in run(server / "bin" / "llama-server", "--help", **FOREIGN)


def test_it_brings_two_programs_and_no_installer(server: Path) -> None:
    packages = server / "libexec/llama-server/lib/python3.11/site-packages"

    assert sorted(each.name for each in (server / "bin").iterdir()) == ["appliance", "llama-server"]
    assert not [each.name for each in packages.iterdir() if each.name.startswith(("pip", "torch"))]


def installed(environment: Path) -> dict[str, str]:
    """The version of each distribution in an environment, by its name with underscores."""
    listing = (
        "import importlib.metadata as m, json;"
        "print(json.dumps([[d.name, d.version] for d in m.distributions()]))"
    )
    return {
        name.lower().replace("-", "_").replace(".", "_"): version
        for name, version in json.loads(run(environment / "bin/python", "-I", "-c", listing))
    }


def locked(variant: str) -> dict[str, str]:
    """What the lock of wheels says of a variant, and the appliance."""
    lock = json.loads((REPOSITORY / "llama-build/wheels.lock.json").read_bytes())
    wheels = {
        wheel["pname"].lower().replace(".", "_"): wheel["version"]
        for wheel in lock["variants"][variant]["x86_64-linux"]
    }
    return wheels | {"llama_appliance": "0.1.0"}


def test_it_holds_exactly_the_locked_versions(server: Path) -> None:
    assert installed(server / "libexec/llama-server") == locked("lean")


def test_its_byte_code_holds_no_time_and_is_never_compared_with_its_source(server: Path) -> None:
    root = server / "libexec/llama-server/lib/python3.11/site-packages"
    flags = [int.from_bytes(path.read_bytes()[4:8], "little") for path in root.rglob("*.pyc")]

    assert len(flags) > 500
    assert set(flags) == {0b01}  # hash-based, unchecked


def test_it_serves_the_model_of_the_other_package_in_a_sandbox(nix: LocalNix) -> None:
    """The flake's check: without a network, with MODEL_PATH in the store."""
    standin = ["--arg", "standin", str(STATE / "standin")]

    nix.build(HERE / "packages.nix", *standin, "-A", "serves.llama-server-lean")


def test_nothing_of_the_build_tools_stays_in_its_closure(nix: LocalNix, server: Path) -> None:
    closure = nix.run("nix-store", "--query", "--requisites", server).splitlines()

    # The stand-in patches no library; with nixpkgs the C library, libstdc++ and zlib come too.
    names = sorted(path.split("-", 1)[1] for path in closure)
    assert names == ["llama-server-lean-0.1.0", "python3-of-host"]
