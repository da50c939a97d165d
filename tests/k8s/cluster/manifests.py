"""The project's overlays in a copy, where a test may move pins and probe more often."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml

from tests.k8s.cluster.compat import down_convert

HERE = Path(__file__).parent
MANIFESTS = HERE.parents[2] / "k8s"

Object = dict[str, Any]


class Manifests:
    """k8s/ with the tests' own overlays beside it, in a folder that nobody else has."""

    def __init__(self, folder: Path) -> None:
        self.root = folder
        shutil.copytree(MANIFESTS, folder)
        shutil.copytree(HERE / "rehearsal", folder / "rehearsal")

    def rehearsal(self, overlay: str) -> list[Object]:
        """As the test cluster takes it."""
        return down_convert(self.render(f"rehearsal/{overlay}"))[0]

    def render(self, folder: str) -> list[Object]:
        """What `kubectl apply -k` would send."""
        text = subprocess.check_output(["kubectl", "kustomize", self.root / folder], text=True)
        return list(yaml.safe_load_all(text))

    def read(self, file: str) -> list[Object]:
        return list(yaml.safe_load_all((self.root / file).read_text()))
