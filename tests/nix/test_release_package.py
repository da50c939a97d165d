"""The release commands as a package: small, whole in itself, and in no server's package."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.nix.local_nix import COMMAND_TIMEOUT_S, REPOSITORY, LocalNix
from tests.nix.store_paths import build
from tests.nix.test_server import FOREIGN, installed, locked, run

pytestmark = pytest.mark.nix

PEBBLE = REPOSITORY / "llama-build/models/pebble.lock.json"
NUM_BYTES = 30_000_000  # 11 MB of them are the model that ships inside


@pytest.fixture(scope="module")
def appliance(nix: LocalNix) -> Path:
    return build(nix, "llama-release") / "bin" / "appliance"


def test_it_brings_one_program_the_locked_wheels_and_no_server(appliance: Path) -> None:
    package = appliance.parents[1]
    size = sum(each.stat().st_size for each in package.rglob("*") if not each.is_symlink())

    assert [each.name for each in appliance.parent.iterdir()] == ["appliance"]
    assert installed(package / "libexec/llama-release") == locked("release")
    assert size < NUM_BYTES


def test_its_commands_need_nothing_of_the_environment(appliance: Path) -> None:
    assert "1 manifest" in run(appliance, "flox", "check", REPOSITORY / "llama-build", **FOREIGN)
    assert "llama" in run(appliance, "pin", "show", "--directory", REPOSITORY / "k8s", **FOREIGN)
    assert '"llama-appliance"' in run(appliance, "sbom", appliance.parents[1], **FOREIGN)


def test_what_serves_is_named_by_its_package(appliance: Path) -> None:
    command = [str(appliance), "serve"]
    result = subprocess.run(
        command, env={}, capture_output=True, text=True, check=False, timeout=COMMAND_TIMEOUT_S
    )

    assert result.returncode == 1
    assert "not installed here. Use the Nix package llama-server" in result.stderr


def test_it_carries_a_bundle_from_one_machine_to_another(appliance: Path, tmp_path: Path) -> None:
    if shutil.which("ssh-keygen") is None:
        assert os.environ.get("CI") != "true", "install ssh-keygen: apt-get install openssh-client"
        pytest.skip("there is no ssh-keygen on this machine (Debian: openssh-client)")
    key, out, into = tmp_path / "key", tmp_path / "out", tmp_path / "into"
    trust = ("--trust", key.with_name("key.pub"))
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}

    run(appliance, "bundle", "keygen", key, **environ)
    run(appliance, "bundle", "create", out, "--model", PEBBLE, "--key", key, **environ)
    verified = run(appliance, "bundle", "verify", out, *trust, **environ)
    imported = run(
        appliance, "bundle", "import", out, *trust, "--models-only", "--into", into, **environ
    )

    assert "trusted signature" in verified
    (model,) = (into / "models").iterdir()
    assert f"appliance serve --model {model}" in imported
    assert (model / "model.lock.json").read_bytes() == PEBBLE.read_bytes()


def test_a_server_has_none_of_the_release_commands(nix: LocalNix) -> None:
    server = build(nix, "llama-server-lean")
    packages = server / "libexec/llama-server/lib/python3.11/site-packages"

    assert (packages / "appliance").is_dir()
    assert not (packages / "appliance_release").exists()
    assert "bundle" not in run(server / "bin" / "appliance", "--help", **FOREIGN)
