"""Manifests that the tests of Flox's checks start from, and how to break one at a known line."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from appliance_release.flox.check import Finding

REPOSITORY = Path(__file__).parents[4]
RUNTIME = REPOSITORY / "llama-runtime" / ".flox" / "env" / "manifest.toml"
CUDA = REPOSITORY / "llama-runtime" / "cuda" / ".flox" / "env" / "manifest.toml"

# An environment that builds by commands; llama-build itself builds by Nix expressions alone.
BUILD = """\
schema-version = "1.13.0"

[install]
python.pkg-path = "python3"

[build.notes]
command = "mkdir -p $out && cp NOTES $out"
runtime-packages = ["python"]
sandbox = "warn"
sandbox-allow = ["~/notes"]
license = ["MIT"]
version = { file = "VERSION" }
"""

# Services that wait for each other and are stopped in their own way.
SERVICES = """\
schema-version = "1.16.0"

[services.db]
command = "db"
is-daemon = true
shutdown.command = "stop"

[services.web]
command = "web"
depends-on.db.condition = "process_started"
shutdown = { signal = 2, timeout-seconds = 40 }
"""


@dataclass(frozen=True)
class Mutation:
    """A manifest with replacements, and what must be said of it: where, and in which words."""

    replacements: dict[str, str]
    line_with: str
    says: tuple[str, ...]


def broken(old: str, new: str, *says: str, at: str | None = None) -> Mutation:
    """One replacement; what is said stands at the line with `at`, or with what was put in."""
    return Mutation({old: new}, new.strip().splitlines()[0] if at is None else at, says)


SCHEMA = 'schema-version = "1.12.0"'
VAR = 'LLAMA_MODEL = "pebble"'
PACKAGE = 'llama-model.pkg-path = "acme/llama-model"'
HOOK = "export MODEL_PATH="
SERVICE = "[services.llama]"
AUTO_START = "auto-start = false"
SYSTEMS = 'systems = ["x86_64-linux"]'
MODE = 'activate.mode = "run"'
REMOTE = '{ remote = "acme/llama-runtime", generation = 1 }'

INSTALL_IDS = ("llama-server", "llama-model", "python", "local")


def lay_out(folder: Path, manifest: str) -> Path:
    """An environment on disk with this manifest, complete but for what is under test."""
    env = folder / "unit" / ".flox" / "env"
    env.mkdir(parents=True)
    (env.parent / "env.json").write_text('{"name": "unit", "version": 1}')
    packages = [{"install_id": name} for name in INSTALL_IDS]
    (env / "manifest.lock").write_text(json.dumps({"lockfile-version": 1, "packages": packages}))
    file = env / "manifest.toml"
    file.write_text(manifest, encoding="utf-8")
    return file


def errors(findings: list[Finding]) -> list[Finding]:
    return [each for each in findings if each.severity == "error"]
