"""A model on the gated hub, and the lock that pins it."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path

from tests.fake_hub import REPOSITORY, FakeHub
from tests.nix.local_nix import STATE, LocalNix

FIRST = "1" * 40


class GatedModel:
    """A lock and the repository it pins, with weights nobody has seen before."""

    def __init__(self, hub: FakeHub, directory: Path) -> None:
        self.hub = hub
        self.lock_file = directory / "tiny.lock.json"
        weights = random.randbytes(3_000_000)
        self.files = {"config.json": b"{}", "model.safetensors": weights}
        self.publish(FIRST, {})

    def publish(self, revision: str, changed: dict[str, bytes]) -> None:
        """Put the files on the hub under this revision, and lock it."""
        self.files |= changed
        self.hub.revision = revision
        for name, body in self.files.items():
            (self.hub.root / name).write_bytes(body)
        pins = {
            name: {"sha256": hashlib.sha256(body).hexdigest(), "size": len(body)}
            for name, body in self.files.items()
        }
        lock = {"lock": 1, "name": "tiny", "repository": REPOSITORY, "revision": revision}
        lock |= {"license": "llama2", "source": None, "files": pins}
        self.lock_file.write_text(json.dumps(lock), encoding="utf-8")

    def build(self, nix: LocalNix) -> Path:
        return nix.build("-E", self.expression())

    def expression(self) -> str:
        return f"""
            (import {STATE}/standin {{ }}).callPackage
              {STATE.parents[1]}/llama-build/.flox/pkgs/llama-model.nix
              {{ lockFile = {self.lock_file}; endpoint = "{self.hub.url}"; }}
        """
