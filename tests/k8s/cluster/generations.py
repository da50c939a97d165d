"""Writes the generations that the scenarios roll, as the stand-in shim reads them."""

from __future__ import annotations

import json
import shutil
import tomllib
from collections.abc import Mapping
from pathlib import Path

from tests.k8s.cluster.packages import Package, load_packages

ENVIRONMENT = "acme/llama-runtime"  # as the overlays name it
MANIFEST = Path(__file__).parents[3] / "llama-runtime" / ".flox" / "env" / "manifest.toml"

# Good ones, one that is replaced under its number, and every way to fail; ABSENT is never written.
GOOD, OTHER, BROKEN, TAMPERED, DEAF, OVERWRITTEN, ABSENT = 1, 2, 3, 4, 5, 6, 9


def write_generations(store: Path) -> None:
    packages = load_packages()
    host, server = packages.host, packages.server
    write_generation(store, GOOD, [server, packages.model], host)
    write_generation(store, OTHER, [server, packages.other_model], host)
    write_generation(store, OVERWRITTEN, [server, packages.model], host)
    # Each of these is a slip that a real environment can contain.
    write_generation(store, BROKEN, [server, packages.model], host, {"LLAMA_MODEL": "marble"})
    write_generation(store, TAMPERED, [server, tampered(packages.model, store.parent)], host)
    write_generation(store, DEAF, [server, packages.model], host, {"APPLIANCE_HOST": "127.0.0.1"})


def tampered(model: Package, folder: Path) -> Package:
    """The model with one bit of its weights changed, and the lock as it was."""
    copy = folder / "tampered"
    shutil.copytree(model.path, copy, symlinks=False)
    weights = copy / "share" / "models" / "pebble" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.chmod(0o644)
    weights.write_bytes(data)
    return Package(str(copy), [str(copy)])


def write_generation(
    store: Path,
    number: int,
    packages: list[Package],
    host: list[str],
    variables: Mapping[str, str] | None = None,
) -> None:
    """The runtime environment's own manifest over these packages, `variables` in its [vars]."""
    manifest = tomllib.loads(MANIFEST.read_text())
    folder = store / ENVIRONMENT / str(number)
    shutil.rmtree(folder, ignore_errors=True)
    mounts = {path: str(Path(path).resolve()) for path in host}
    for package in packages:
        merge(Path(package.path), folder / "env")
        mounts |= {path: path for path in package.closure}
    generation = {
        "environment": f"{folder}/env",
        "mounts": mounts,
        "vars": manifest.get("vars", {}) | dict(variables or {}),
        "hook": manifest.get("hook", {}).get("on-activate", ""),
    }
    (folder / "generation.json").write_text(json.dumps(generation, indent=1))


def merge(package: Path, environment: Path) -> None:
    """Links to a package's programs and models, where an activated environment has them."""
    for pattern in ("bin/*", "share/models/*"):
        for path in package.glob(pattern):
            link = environment / path.relative_to(package)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path)
