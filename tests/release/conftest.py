"""A small model on a gated hub, a Nix store of one's own, and what makes and signs bundles."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from appliance.cli.main import main
from appliance.models.directory import embedded_model_path
from appliance_release.locks.nix_store import NixStore
from tests.fake_hub import FakeHub, serving
from tests.release.built import build

PEBBLE = Path(__file__).parents[2] / "llama-build" / "models" / "pebble.lock.json"

Run = Callable[..., int]

INDEX = {
    "metadata": {"total_size": 0},
    "weight_map": {
        "a": "model-00001-of-00002.safetensors",
        "b": "model-00002-of-00002.safetensors",
    },
}


def write_repository(root: Path) -> None:
    """The files of a repository as they are on the Hub, those that nobody should fetch included."""
    noise = random.Random(7)
    root.mkdir()
    (root / "config.json").write_text(
        json.dumps({"architectures": ["LlamaForCausalLM"], "model_type": "llama"})
    )
    (root / "tokenizer.json").write_text("{}")
    (root / "tokenizer_config.json").write_text("{}")
    (root / "README.md").write_text(
        "---\nlicense: apache-2.0\npipeline_tag: text-generation\n---\n"
    )
    (root / "LICENSE.txt").write_text("You may.")
    (root / "model.safetensors.index.json").write_text(json.dumps(INDEX))
    (root / "model-00001-of-00002.safetensors").write_bytes(noise.randbytes(3_000_000))
    (root / "model-00002-of-00002.safetensors").write_bytes(noise.randbytes(200_000))
    (root / "consolidated.safetensors").write_bytes(b"another form of the same")
    (root / "pytorch_model.bin").write_bytes(b"a pickle")
    (root / "pytorch_model.bin.index.json").write_text("{}")
    (root / "modeling_tiny.py").write_text("raise SystemExit")
    (root / ".gitattributes").write_text("*.safetensors filter=lfs")


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[FakeHub]:
    root = tmp_path / "repository"
    write_repository(root)
    with serving(FakeHub(root)) as running:
        yield running


@pytest.fixture
def nix_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[NixStore]:
    """An empty store of its own, kept by this machine's Nix."""
    store = NixStore.find()
    if store is None:
        assert os.environ.get("CI") != "true", "install Nix: apt-get install nix-bin"
        pytest.skip("there is no Nix on this machine")
    root = tmp_path / "nix"
    settings = root / "conf"
    settings.mkdir(parents=True)
    # What is built in these tests is three lines of shell: tests/nix is where the sandbox matters.
    (settings / "nix.conf").write_text(
        "sandbox = false\nbuild-users-group =\nsubstituters =\n"
        "experimental-features = nix-command\n"
    )
    monkeypatch.setenv("NIX_CONF_DIR", str(settings))
    monkeypatch.setenv("NIX_REMOTE", "local")
    for name in ("store", "state", "log"):
        monkeypatch.setenv(f"NIX_{name.upper()}_DIR", str(root / name))
    monkeypatch.delenv("NIX_PATH", raising=False)
    yield store
    for path in (root / "store").rglob("*"):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)  # the store makes folders read-only


@pytest.fixture
def run(tmp_path: Path) -> Run:
    def run(*arguments: str | Path) -> int:
        return main(["bundle", *map(str, arguments)], {"XDG_CACHE_HOME": str(tmp_path / "home")})

    return run


@pytest.fixture
def key(tmp_path: Path, run: Run) -> Path:
    if shutil.which("ssh-keygen") is None:
        assert os.environ.get("CI") != "true", "install ssh-keygen: apt-get install openssh-client"
        pytest.skip("there is no ssh-keygen on this machine (Debian: openssh-client)")
    assert run("keygen", tmp_path / "keys" / "release") == 0
    return tmp_path / "keys" / "release"


@pytest.fixture
def trust(key: Path) -> tuple[str, Path]:
    return "--trust", key.with_name("release.pub")


@pytest.fixture
def server(nix_store: NixStore, tmp_path: Path) -> Path:
    """In that store, with all that it needs."""
    model = tmp_path / "pebble"
    shutil.copytree(embedded_model_path(), model)
    (model / "model.lock.json").write_text(PEBBLE.read_text())
    return build(tmp_path, model)
