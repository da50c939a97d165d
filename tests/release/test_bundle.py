"""`appliance bundle`: made, carried, verified and installed, with real signatures and real Nix."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from appliance.models.directory import embedded_model_path, open_model
from tests.release.conftest import PEBBLE, Run

GUIDE = Path(__file__).parents[2] / "docs/guides/air-gapped.md"
WEIGHTS = "models/pebble/model.safetensors"
EMPTY = "files/k8s/base/empty"


@pytest.fixture
def bundle(tmp_path: Path, run: Run, key: Path) -> Path:
    """A model and some manifests."""
    manifests = tmp_path / "k8s"
    (manifests / "base" / ".flox" / "cache").mkdir(parents=True)
    (manifests / "base" / "service.yaml").write_text("kind: Service\n")
    (manifests / "base" / "empty").write_text("")
    (manifests / "base" / ".flox" / "cache" / "x").write_text("left over")
    out = tmp_path / "out"
    assert run("create", out, "--model", PEBBLE, "--with", manifests, "--key", key) == 0
    return out


def test_a_bundle_holds_models_manifests_a_bill_and_a_signed_list(bundle: Path) -> None:
    files = sorted(p.relative_to(bundle).as_posix() for p in bundle.rglob("*") if p.is_file())
    model = [
        f"models/pebble/{path.name}" for path in embedded_model_path().iterdir() if path.is_file()
    ]
    listed = [EMPTY, "files/k8s/base/service.yaml", "models/pebble/model.lock.json", "sbom.json"]
    assert files == sorted([*listed, *model, "bundle.json", "bundle.json.sig"])
    manifest = json.loads((bundle / "bundle.json").read_text())
    assert sorted(manifest["files"]) == sorted([*listed, *model])
    assert manifest["models"] == ["pebble"]
    assert open_model(bundle / "models/pebble").is_locked


def test_the_same_parts_make_the_same_bundle_to_the_last_byte(
    bundle: Path, tmp_path: Path, run: Run, key: Path
) -> None:
    again = tmp_path / "again"
    assert run("create", again, "--model", PEBBLE, "--with", tmp_path / "k8s", "--key", key) == 0
    for name in ("bundle.json", "bundle.json.sig", "sbom.json"):
        assert (again / name).read_bytes() == (bundle / name).read_bytes()


def test_the_guide_checks_a_bundle_without_the_appliance(
    bundle: Path, key: Path, tmp_path: Path
) -> None:
    (tmp_path / "release.pub").write_text(key.with_name("release.pub").read_text())
    text = GUIDE.read_text().partition("## The first time")[2]
    script = "set -e\n" + text.partition("```sh\n")[2].partition("```")[0]

    def check() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
        )

    whole = check()
    assert (whole.returncode, whole.stderr) == (0, "")
    (bundle / "sbom.json").write_text("{}")
    assert "sbom.json: FAILED" in check().stdout
    assert check().returncode != 0
    (bundle / "bundle.json").write_text("{}")
    assert "Signature verification failed" in check().stderr


def test_a_whole_bundle_verifies(
    bundle: Path, run: Run, trust: tuple[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("verify", bundle, *trust) == 0
    assert "is whole" in capsys.readouterr().out


def change_a_byte(bundle: Path) -> None:
    content = bytearray((bundle / WEIGHTS).read_bytes())
    content[1_000_000] ^= 1
    (bundle / WEIGHTS).write_bytes(content)


def lengthen(bundle: Path) -> None:
    with (bundle / WEIGHTS).open("ab") as file:
        file.write(b"x")


def replace_by_link(bundle: Path) -> None:
    (bundle / WEIGHTS).unlink()
    (bundle / WEIGHTS).symlink_to(embedded_model_path() / "model.safetensors")


def replace_by_pipe(bundle: Path) -> None:
    (bundle / EMPTY).unlink()
    os.mkfifo(bundle / EMPTY)


def rewrite_the_list(bundle: Path) -> None:
    """What someone without the key would try: change a file and its line in the list."""
    lengthen(bundle)
    manifest = json.loads((bundle / "bundle.json").read_text())
    manifest["files"][WEIGHTS]["size"] += 1
    (bundle / "bundle.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("tamper", "words"),
    [
        (change_a_byte, f"{WEIGHTS}: changed (another SHA-256)"),
        (lengthen, f"{WEIGHTS}: changed (another size)"),
        (lambda bundle: (bundle / WEIGHTS).unlink(), f"{WEIGHTS}: missing"),
        (lambda bundle: (bundle / "models/x.txt").write_text(""), "models/x.txt: extra"),
        (lambda bundle: (bundle / "models/x").symlink_to("/etc"), "models/x: extra"),
        (replace_by_link, f"{WEIGHTS}: changed (no file)"),
        (replace_by_pipe, f"{EMPTY}: changed (no file)"),
        (rewrite_the_list, "bundle.json: its signature does not fit"),
        (lambda bundle: (bundle / "bundle.json.sig").unlink(), "bundle.json: it is not signed"),
        (lambda bundle: (bundle / "bundle.json.sig").write_text("x"), "signature does not fit"),
    ],
)
def test_whatever_was_changed_is_named_and_nothing_is_imported(
    tamper: Callable[[Path], object],
    words: str,
    bundle: Path,
    run: Run,
    trust: tuple[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tamper(bundle)
    assert run("verify", bundle, *trust) == 4
    assert words in capsys.readouterr().err
    into = tmp_path / "into"
    assert run("import", bundle, *trust, "--into", into) == 4
    assert "Nothing was imported." in capsys.readouterr().err
    assert not into.exists()


def test_a_key_that_is_not_trusted_is_told_by_its_fingerprint(
    bundle: Path, run: Run, key: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "keys" / "other"
    assert run("keygen", other) == 0
    assert run("verify", bundle, "--trust", other.with_name("other.pub")) == 4
    shown = subprocess.run(
        ["ssh-keygen", "-lf", f"{key}.pub"], capture_output=True, text=True, check=True
    )
    message = capsys.readouterr().err
    assert f"signed by a key that is not trusted, {shown.stdout.split()[1]}" in message


def test_one_of_several_trusted_keys_is_enough(
    bundle: Path, run: Run, trust: tuple[str, Path], tmp_path: Path
) -> None:
    other = tmp_path / "keys" / "other"
    assert run("keygen", other) == 0
    assert run("verify", bundle, "--trust", other.with_name("other.pub"), *trust) == 0


def test_a_signature_made_for_another_purpose_is_none(
    bundle: Path, run: Run, key: Path, trust: tuple[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    (bundle / "bundle.json.sig").unlink()
    subprocess.run(
        ["ssh-keygen", "-Y", "sign", "-q", "-f", key, "-n", "git", bundle / "bundle.json"],
        check=True,
        capture_output=True,
    )
    assert run("verify", bundle, *trust) == 4
    assert "its signature does not fit" in capsys.readouterr().err


def test_a_model_is_imported_ready_to_serve(
    bundle: Path,
    run: Run,
    trust: tuple[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("import", bundle, *trust) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    folder = Path(line.removeprefix("appliance serve --model "))
    assert folder.is_relative_to(tmp_path / "home" / "appliance" / "models")
    assert open_model(folder).is_locked


def test_an_unsigned_bundle_is_imported_only_when_that_is_said(
    bundle: Path, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (bundle / "bundle.json.sig").unlink()
    assert run("import", bundle) == 2
    assert "--trust" in capsys.readouterr().err
    assert run("import", bundle, "--unverified", "--into", tmp_path / "into") == 0
    output = capsys.readouterr()
    assert "importing although" in output.err
    assert "it is not signed" in output.err


def test_a_list_that_leads_out_of_the_bundle_is_refused(
    bundle: Path, run: Run, trust: tuple[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("../up", "/etc/passwd", "a/../../b", "a//b", "./a"):
        manifest = json.loads((bundle / "bundle.json").read_text())
        manifest["files"] = {name: {"sha256": "a" * 64, "size": 1}}
        (bundle / "bundle.json").write_text(json.dumps(manifest))
        assert run("verify", bundle, *trust) == 4
        assert "which is not a plain path" in capsys.readouterr().err


def test_what_cannot_be_bundled_is_refused(
    tmp_path: Path, run: Run, key: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("create", bundle, "--model", PEBBLE, "--key", key) == 4
    assert "is not empty" in capsys.readouterr().err
    assert run("create", tmp_path / "none", "--key", key) == 2
    assert "would be empty" in capsys.readouterr().err
    assert run("create", tmp_path / "n1", "--model", PEBBLE, "--key", tmp_path / "no") == 4
    assert "is not a key file" in capsys.readouterr().err
    lock = tmp_path / "far.lock.json"
    text = PEBBLE.read_text().replace('"../../server/appliance/embedded"', "null")
    lock.write_text(text.replace("d48ee1dbc6bc", "0" * 12))
    assert not (tmp_path / "n1").exists()
    assert run("create", tmp_path / "n2", "--model", lock, "--key", key) == 4
    assert f"appliance prefetch {lock}" in capsys.readouterr().err
    assert run("verify", tmp_path, "--trust", f"{key}.pub") == 4
    assert "is not a bundle" in capsys.readouterr().err


def test_a_key_is_never_overwritten(
    key: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("keygen", key) == 4
    assert "A key is not overwritten" in capsys.readouterr().err
    assert key.stat().st_mode & 0o077 == 0


def test_a_private_key_is_no_key_to_trust(
    bundle: Path, key: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("verify", bundle, "--trust", key) == 4
    assert "is not a public Ed25519 key" in capsys.readouterr().err
