"""A closure of Nix in a bundle: into another store and back, damaged, and taken by Nix alone."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from appliance_release.locks.nix_store import NixStore
from tests.release.conftest import Run


@pytest.mark.nix
def test_a_closure_goes_into_another_store_and_comes_back_the_same(
    nix_store: NixStore,
    server: Path,
    tmp_path: Path,
    run: Run,
    key: Path,
    trust: tuple[str, Path],
) -> None:
    before = nix_store.closure(str(server))
    out, into = tmp_path / "out", tmp_path / "into"
    assert run("create", out, server, "--key", key) == 0
    subprocess.run(["nix-collect-garbage"], check=True, capture_output=True)
    assert not nix_store.is_valid(str(server))
    assert run("import", out, *trust, "--into", into) == 0
    assert nix_store.closure(str(server)) == before
    assert (into / "roots" / "tiny-server-0.1").resolve() == server
    subprocess.run(["nix-collect-garbage"], check=True, capture_output=True)
    assert nix_store.is_valid(str(server))


@pytest.mark.nix
def test_a_damaged_nar_is_found_before_it_reaches_the_store(
    nix_store: NixStore,
    server: Path,
    tmp_path: Path,
    run: Run,
    key: Path,
    trust: tuple[str, Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    assert run("create", out, server, "--key", key) == 0
    subprocess.run(["nix-collect-garbage"], check=True, capture_output=True)
    nar = max(out.glob("nix-cache/nar/*"), key=lambda path: path.stat().st_size)
    with nar.open("r+b") as file:
        file.seek(-5, 2)
        file.write(b"wrong")
    assert run("import", out, *trust) == 4
    assert f"nix-cache/nar/{nar.name}: changed" in capsys.readouterr().err
    assert not nix_store.is_valid(str(server))


@pytest.mark.nix
def test_a_cache_signed_for_nix_is_taken_by_nix_alone(
    nix_store: NixStore, server: Path, tmp_path: Path, run: Run, key: Path
) -> None:
    """By whom trusts the key, without our command; by nobody else."""
    secret = tmp_path / "nix.key"
    nix = ["nix", "--extra-experimental-features", "nix-command"]
    made = [*nix, "key", "generate-secret", "--key-name", "release-1"]
    secret.write_bytes(subprocess.run(made, check=True, capture_output=True).stdout)
    public = subprocess.run(
        [*nix, "key", "convert-secret-to-public"],
        input=secret.read_bytes(),
        check=True,
        capture_output=True,
    ).stdout.decode()
    out = tmp_path / "out"
    assert run("create", out, server, "--key", key, "--nix-key", secret) == 0
    subprocess.run(["nix-collect-garbage"], check=True, capture_output=True)
    copy = [*nix, "copy", "--from", f"file://{out}/nix-cache", str(server)]
    refused = subprocess.run(copy, check=False, capture_output=True, text=True)
    assert refused.returncode != 0
    assert "signature" in refused.stderr
    subprocess.run([*copy, "--trusted-public-keys", public], check=True, capture_output=True)
    assert nix_store.is_valid(str(server))
    assert secret.read_text() not in "".join(
        path.read_text(errors="ignore") for path in out.rglob("*") if path.is_file()
    )
