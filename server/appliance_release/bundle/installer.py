"""Installs a verified bundle without a network."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.errors import ReleaseError
from appliance.models.directory.lock import LOCK_FILE
from appliance_release.bundle.maker import CACHE, MODELS
from appliance_release.locks.model_lock import read_model_lock

if TYPE_CHECKING:
    from appliance.console.terminal import Terminal
    from appliance_release.bundle.manifest import Manifest
    from appliance_release.locks.nix_store import NixStore


def install(
    directory: Path, manifest: Manifest, *, store: NixStore | None, into: Path, terminal: Terminal
) -> list[str]:
    """Puts store paths into the Nix store and models below `into`; returns a line for each."""
    lines = []
    if manifest.store_paths:
        if store is None:
            raise ReleaseError(
                f"The bundle holds {len(manifest.store_paths)} Nix store paths, and there is no Nix"
                " on this machine. Install Nix, or add --models-only."
            )
        with terminal.counting("importing store paths"):
            store.import_from(directory / CACHE, manifest.store_paths)
        for path in manifest.store_paths:
            root = into / "roots" / Path(path).name[33:]
            store.keep(path, root)
            lines.append(f"{root} -> {path}")
    for name in manifest.models:
        lock = read_model_lock(directory / MODELS / name / LOCK_FILE)
        target = into / MODELS / f"{lock.name}-{lock.revision[:12]}"
        with terminal.counting(f"copying {name}"):
            shutil.copytree(directory / MODELS / name, target, dirs_exist_ok=True)
        lines.append(f"appliance serve --model {target}")
    return lines
