"""Describes a model as a component: revision, licence, file hashes, architecture."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.errors import ModelRefused
from appliance.models.directory.inventory import CONFIG, MAX_SMALL_JSON_BYTES
from appliance.models.directory.json_file import read_json_object
from appliance.models.directory.lock import LOCK_FILE
from appliance_release.locks.model_lock import (
    NO_LICENSE,
    local_repository,
    lock_directory,
    read_model_lock,
    source_folder,
)
from appliance_release.sbom.model_card import read_license, read_model_card

if TYPE_CHECKING:
    from appliance.models.hashing import FileHasher
    from appliance_release.locks.model_lock import ModelLock

DEFAULT_TASK = "text-generation"


def describe_lock(path: Path) -> dict[str, object]:
    """Describes a model by its lock, and by its files if it comes from a folder."""
    lock = read_model_lock(path)
    return _describe(lock, source_folder(lock, path))


def describe_directory(directory: Path, hasher: FileHasher) -> dict[str, object]:
    """Describes a model by the lock in its directory; without one, hashes the files."""
    path = directory / LOCK_FILE
    if path.is_file():
        return _describe(read_model_lock(path), directory)
    lock = lock_directory(
        directory, repository=local_repository(directory), lock_path=path, hasher=hasher
    )
    return _describe(replace(lock, license=read_license(directory) or NO_LICENSE), directory)


def _describe(lock: ModelLock, directory: Path | None) -> dict[str, object]:
    is_of_hub = lock.source is None and not lock.repository.startswith("local/")
    purl = f"pkg:huggingface/{lock.repository}@{lock.revision}" if is_of_hub else None
    reference = purl or f"model:{lock.repository}@{lock.revision}"
    group, _, name = lock.repository.partition("/")
    component: dict[str, object] = {
        "type": "machine-learning-model",
        "bom-ref": reference,
        "group": group,
        "name": name,
        "version": lock.revision,
        "licenses": [{"license": {"name": lock.license}}],
        "modelCard": {"modelParameters": _parameters(directory)},
        "components": [
            {
                "type": "file",
                "bom-ref": f"{reference}#{file}",
                "name": file,
                "hashes": [{"alg": "SHA-256", "content": pin.sha256}],
                "properties": [{"name": "size_bytes", "value": str(pin.size_bytes)}],
            }
            for file, pin in sorted(lock.files.items())
        ],
    }
    if purl is None:
        return component
    url = f"https://huggingface.co/{lock.repository}/tree/{lock.revision}"
    return component | {"purl": purl, "externalReferences": [{"type": "distribution", "url": url}]}


def _parameters(directory: Path | None) -> dict[str, object]:
    """Reads task and architecture from model card and config.json, if they are here."""
    text = [{"format": "text"}]
    found: dict[str, object] = {"task": DEFAULT_TASK, "inputs": text, "outputs": text}
    if directory is None:
        return found
    found["task"] = read_model_card(directory).get("pipeline_tag", DEFAULT_TASK)
    try:
        config = read_json_object(directory / CONFIG, max_bytes=MAX_SMALL_JSON_BYTES)
    except ModelRefused:
        return found
    architectures = config.get("architectures")
    if isinstance(config.get("model_type"), str):
        found["architectureFamily"] = config["model_type"]
    if isinstance(architectures, list) and architectures and isinstance(architectures[0], str):
        found["modelArchitecture"] = architectures[0]
    return found
