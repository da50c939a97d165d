"""What to look for in a cluster is read from what would be applied to it."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.errors import ReleaseError
from appliance_release.rollout.state import Target
from appliance_release.rollout.target import find_targets

K8S = Path(__file__).parents[4] / "k8s"
PLAIN = Target(namespace="llama", deployment="llama", pinned="acme/llama-runtime:1")


def test_a_plain_manifest_is_read_as_it_is() -> None:
    assert find_targets(K8S, "llama") == [PLAIN]


def test_an_overlay_is_rendered() -> None:
    def render(command: list[str], /, *, timeout_s: float = 60.0) -> str:
        assert command == ["kubectl", "kustomize", str(K8S / "overlays" / "staging")]
        return (K8S / "llama.yaml").read_text()

    assert find_targets(K8S, "staging", render) == [PLAIN]


def test_an_unknown_overlay_names_the_known_ones() -> None:
    with pytest.raises(ReleaseError, match="There are: canary, llama, production, staging"):
        find_targets(K8S, "prod")


def test_an_overlay_without_servers_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("kind: Deployment\nmetadata: {name: a}\n")
    with pytest.raises(ReleaseError, match="no Deployment that runs a Flox environment"):
        find_targets(tmp_path, "x")
