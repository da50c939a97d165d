"""The service of llama-runtime/ with server and model from the store, run without Flox."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tests.flox.runtime_harness import started
from tests.nix.local_nix import REPOSITORY, LocalNix
from tests.nix.store_paths import build

pytestmark = pytest.mark.nix


def test_the_service_answers_with_the_model_that_is_locked_and_drains(
    nix: LocalNix, tmp_path: Path
) -> None:
    packages = [f"--package={build(nix, name)}" for name in ("llama-server-lean", "llama-model")]
    lock = json.loads((REPOSITORY / "llama-build" / "models" / "pebble.lock.json").read_bytes())

    with started(tmp_path, *packages, PORT="0") as service:
        _, text = service.request("POST", "/generate", {"prompt": "Once", "max_new_tokens": 4})
        assert json.loads(text)["model"] == lock["name"]
        assert (tmp_path / "env" / "bin" / "llama-server").resolve().is_relative_to("/nix/store")

        service.process.send_signal(signal.SIGTERM)
        assert service.wait() == 0
    assert '"event":"draining"' in service.log.read_text()
