"""Writes a bill of materials in CycloneDX 1.6: the same bytes for the same parts."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from appliance import __version__
from appliance.errors import ReleaseError
from appliance.models.directory.inventory import CONFIG
from appliance.models.directory.lock import LOCK_FILE
from appliance_release.sbom.model import describe_directory, describe_lock
from appliance_release.sbom.packages import describe_packages, site_packages

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from appliance.models.hashing import FileHasher
    from appliance_release.locks.nix_store import NixStore, StorePath

Component = dict[str, object]
SPEC_VERSION = "1.6"
# Serial numbers are made of the content, in a name space of our own.
NAMESPACE = uuid.UUID("5d0a7b5e-6f0c-5b1e-9d3a-3f6f0b1c2d4e")


@dataclass(slots=True)
class Parts:
    """Components by reference, and the references each of them depends on."""

    components: dict[str, Component] = field(default_factory=dict)
    depends_on: dict[str, set[str]] = field(default_factory=dict)

    def add(self, component: Component, *, of: str | None = None) -> None:
        reference = str(component["bom-ref"])
        self.components.setdefault(reference, component)
        self.depends_on.setdefault(reference, set())
        if of is not None:
            self.depends_on.setdefault(of, set()).add(reference)


def describe(
    paths: Sequence[Path], *, store: NixStore | None, hasher: FileHasher, timestamp: str | None
) -> str:
    """Writes the bill of `paths`: store paths, environments, models, model locks."""
    parts = Parts()
    roots = []
    for path in paths:
        if not path.exists():
            raise ReleaseError(f"{path} does not exist.")
        roots += _describe_one(path, parts, store, hasher)
    top = paths[0].resolve().name if store is None else store.name_of(paths[0])
    return _render(parts, sorted(set(roots)), top, timestamp)


def _describe_one(
    path: Path, parts: Parts, store: NixStore | None, hasher: FileHasher
) -> list[str]:
    """Adds the parts at `path`; returns the references of the top ones."""
    if store is not None and (top := store.top_path(path)) is not None:
        return [_describe_closure(top, parts, store, hasher)]
    if path.is_file():
        return _add_all(parts, [describe_lock(path)])
    if is_model(path):
        return _add_all(parts, [describe_directory(path, hasher)])
    folders = site_packages(path)
    if not folders:
        raise ReleaseError(
            f"{path} cannot have a bill: it is neither a Nix store path, nor a Python"
            " environment, nor a model directory, nor a model lock."
        )
    return _add_all(parts, describe_packages(folders))


def is_model(path: Path) -> bool:
    return (path / CONFIG).exists() or (path / LOCK_FILE).exists()


def _add_all(parts: Parts, components: Iterable[Component]) -> list[str]:
    found = list(components)
    for component in found:
        parts.add(component)
    return [str(component["bom-ref"]) for component in found]


def _describe_closure(top: str, parts: Parts, store: NixStore, hasher: FileHasher) -> str:
    """Adds each store path with its hash, and the Python packages and models in it."""
    for entry in store.closure(top):
        parts.add(_store_component(entry))
        for reference in entry.references:
            if reference != entry.path:
                parts.depends_on[entry.path].add(reference)
        folder = Path(entry.path)
        for component in describe_packages(site_packages(folder)):
            parts.add(component, of=entry.path)
        for model in sorted(folder.glob("share/models/*")):
            if is_model(model):
                parts.add(describe_directory(model, hasher), of=entry.path)
    return top


def _store_component(entry: StorePath) -> Component:
    """Names a store path without its digest, which is in the reference; hashes its NAR."""
    name, _, version = _split_version(Path(entry.path).name[33:])
    component: Component = {
        "type": "file" if Path(entry.path).is_file() else "application",
        "bom-ref": entry.path,
        "name": name,
        "properties": [
            {"name": "nix:narHash", "value": f"sha256:{entry.nar_sha256}"},
            {"name": "nix:narSize", "value": str(entry.nar_bytes)},
        ],
    }
    return component | ({"version": version} if version else {})


def _split_version(name: str) -> tuple[str, str, str]:
    """Splits a name as Nix does: the version begins after the first dash without a letter."""
    for place, char in enumerate(name[:-1]):
        if char == "-" and not name[place + 1].isalpha():
            return name[:place], "-", name[place + 1 :]
    return name, "", ""


def _render(parts: Parts, roots: list[str], name: str, timestamp: str | None) -> str:
    root = "root"
    tool = {"type": "application", "name": "llama-appliance", "version": __version__}
    metadata: Component = {
        "tools": {"components": [tool]},
        "component": {"type": "application", "bom-ref": root, "name": name},
    }
    graph = {root: set(roots), **parts.depends_on}
    document: Component = {
        "bomFormat": "CycloneDX",
        "specVersion": SPEC_VERSION,
        "version": 1,
        "metadata": metadata,
        "components": [parts.components[each] for each in sorted(parts.components)],
        "dependencies": [
            {"ref": each, "dependsOn": sorted(graph[each] & parts.components.keys())}
            for each in sorted(graph)
        ],
    }
    content = json.dumps(document, sort_keys=True)
    document["serialNumber"] = f"urn:uuid:{uuid.uuid5(NAMESPACE, content)}"
    if timestamp is not None:
        metadata["timestamp"] = timestamp
    return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
