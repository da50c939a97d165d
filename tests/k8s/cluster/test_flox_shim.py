"""The stand-in shim rewrites what containerd wrote, and refuses what is not there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.k8s.cluster.flox_shim import ANNOTATION, prepare

PIN = "acme/llama-runtime:1"


def container(reference: str | None, kind: str = "container") -> dict[str, Any]:
    annotations = {"io.kubernetes.cri.container-type": kind}
    if reference is not None:
        annotations[ANNOTATION] = reference
    process = {"args": ["llama-server"], "env": ["PATH=/usr/bin", "HOME=/tmp"]}
    return {"annotations": annotations, "process": process, "mounts": []}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    folder = tmp_path / "store" / "acme" / "llama-runtime" / "1"
    folder.mkdir(parents=True)
    generation = {
        "environment": "/generations/1/env",
        "mounts": {"/nix/store/abc-server": "/nix/store/abc-server"},
        "vars": {"LLAMA_MODEL": "pebble", "HOME": "/nowhere"},
        "hook": 'export MODEL_PATH="$FLOX_ENV/share/models/$LLAMA_MODEL"',
    }
    (folder / "generation.json").write_text(json.dumps(generation))
    return tmp_path / "store"


def prepared(tmp_path: Path, store: Path, spec: dict[str, Any]) -> dict[str, Any]:
    config = tmp_path / "config.json"
    config.write_text(json.dumps(spec))
    prepare(config, store)
    changed: dict[str, Any] = json.loads(config.read_text())
    return changed


def test_the_pinned_generation_is_mounted_read_only(tmp_path: Path, store: Path) -> None:
    mounts = prepared(tmp_path, store, container(PIN))["mounts"]
    assert {mount["destination"] for mount in mounts} == {"/nix/store/abc-server", "/flox/env"}
    assert all("ro" in mount["options"] for mount in mounts)


def test_the_environments_variables_win_and_its_hook_runs_first(
    tmp_path: Path, store: Path
) -> None:
    process = prepared(tmp_path, store, container(PIN))["process"]
    assert "HOME=/nowhere" in process["env"]
    assert "PATH=/flox/env/bin" in process["env"]
    shell, flag, script, _, *command = process["args"]
    assert (shell, flag, command) == ("/bin/bash", "-c", ["llama-server"])
    assert script.endswith('exec "$@"')


def test_the_pods_sandbox_is_left_alone(tmp_path: Path, store: Path) -> None:
    spec = container(PIN, kind="sandbox")
    assert prepared(tmp_path, store, spec) == spec


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        (None, "no annotation"),
        ("acme/llama-runtime", "not pinned"),
        ("acme/llama-runtime:latest", "not pinned"),
        ("acme/llama-runtime:2", "no generation 2"),
    ],
)
def test_what_cannot_run_is_refused_by_name(
    tmp_path: Path, store: Path, reference: str | None, message: str
) -> None:
    with pytest.raises(SystemExit, match=message):
        prepared(tmp_path, store, container(reference))
