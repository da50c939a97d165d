"""Renders kustomizations as `kubectl apply -k` would; for the tests of k8s/."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).parents[2]
K8S = REPOSITORY / "k8s"
OVERLAYS = sorted(path.parent.name for path in K8S.glob("overlays/*/kustomization.yaml"))
COMPONENTS = sorted(path.parent.name for path in K8S.glob("components/*/kustomization.yaml"))
CLUSTER_FILES = sorted(path.name for path in K8S.glob("cluster/*.yaml"))
MIN_MINOR = 21  # the first kubectl whose kustomize knows components

Object = dict[str, Any]


@functools.cache
def why_no_kubectl() -> str | None:
    if shutil.which("kubectl") is None:
        return "kubectl is not installed"
    command = ["kubectl", "version", "--client", "--output", "json"]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    minor = int(re.sub(r"\D.*", "", json.loads(said)["clientVersion"]["minor"]))
    return None if minor >= MIN_MINOR else f"kubectl 1.{minor} cannot render kustomize components"


def need_kubectl() -> None:
    reason = why_no_kubectl()
    if reason is None:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason}; in CI it must be there")
    pytest.skip(reason)


@functools.cache
def rendered_text(folder: Path) -> str:
    need_kubectl()
    command = ["kubectl", "kustomize", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def rendered(overlay: str) -> list[Object]:
    return load(rendered_text(K8S / "overlays" / overlay))


def with_components(folder: Path, components: Sequence[str], base: str = "staging") -> list[Object]:
    """An overlay with components more, made in `folder`; kustomize wants relative paths."""
    up = os.path.relpath(K8S, folder)
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": f"llama-{base}",
        "resources": [f"{up}/overlays/{base}"],
        "components": [f"{up}/components/{name}" for name in components],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    return load(rendered_text(folder))


def load(text: str) -> list[Object]:
    return [each for each in yaml.safe_load_all(text) if each is not None]


def load_file(path: Path) -> list[Object]:
    return load(path.read_text(encoding="utf-8"))


def only(objects: list[Object], kind: str) -> Object:
    found = [each for each in objects if each["kind"] == kind]
    assert len(found) == 1, f"{len(found)} of kind {kind}"
    return found[0]
