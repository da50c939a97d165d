"""Locks a repository of the Hub from its listing: large files are pinned without a download."""

from __future__ import annotations

import hashlib
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.errors import ModelRefused, ReleaseError
from appliance.models.directory.inventory import CODE_SUFFIXES, take_inventory
from appliance.models.directory.weights import INDEX_FILE
from appliance_release.locks.model_lock import (
    FILE_NAME,
    NO_LICENSE,
    ModelLock,
    PinnedFile,
    is_wanted,
    select_files,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from appliance_release.locks.hub import Hub, HubFile, HubRevision

MAX_SMALL_BYTES = 64_000_000
NUM_DOWNLOADS = 4


def lock_repository(hub: Hub, repository: str, revision: str) -> ModelLock:
    """Locks the commit that `revision` names now; later changes do not affect the lock."""
    at = hub.resolve(repository, revision)
    listed = {file.name: file for file in hub.list_files(at) if FILE_NAME.fullmatch(file.name)}
    small = [file for file in listed.values() if _is_read(file)]
    for file in small:
        if file.size_bytes > MAX_SMALL_BYTES:
            raise ReleaseError(
                f"{file.name} has {file.size_bytes:,} bytes, and the hub lists no SHA-256 for it."
            )
    with ThreadPoolExecutor(NUM_DOWNLOADS, thread_name_prefix="hub") as pool:
        contents = dict(
            zip(
                (file.name for file in small),
                pool.map(lambda file: _download(hub, at, file), small),
                strict=True,
            )
        )
    weights = _find_weights(repository, listed, contents)
    names = select_files(list(listed), weights)
    return ModelLock(
        name=repository.partition("/")[2],
        repository=repository,
        revision=at.revision,
        license=at.license or NO_LICENSE,
        source=None,
        files={name: _pin(listed[name], contents) for name in names},
    )


def _is_read(file: HubFile) -> bool:
    return is_wanted(file.name) and (file.sha256 is None or file.name == INDEX_FILE)


def _download(hub: Hub, at: HubRevision, file: HubFile) -> bytes:
    """Downloads a small file; checks the git object id, or SHA-256, that the hub lists."""
    content = hub.read(at, file.name)
    blob = f"blob {len(content)}\0".encode() + content
    is_same = (
        hashlib.sha1(blob, usedforsecurity=False).hexdigest() == file.git_oid
        if file.sha256 is None
        else hashlib.sha256(content).hexdigest() == file.sha256
    )
    if not is_same:
        raise ReleaseError(f"{file.name} arrived damaged: it is not the file that the hub lists.")
    return content


def _find_weights(
    repository: str, listed: Mapping[str, HubFile], contents: Mapping[str, bytes]
) -> set[str]:
    """Finds the weight files, by the checks that a served model directory has to pass."""
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        for name in listed:
            if Path(name).suffix.lower() not in CODE_SUFFIXES:
                (directory / name).write_bytes(contents.get(name, b""))
        try:
            inventory = take_inventory(directory)
            inventory.read_object("config")
        except ModelRefused as error:
            raise ReleaseError(error.message.replace(folder, repository)) from None
        weights = {path.name for path in inventory.weight_files}
    without = sorted(name for name in weights if listed[name].sha256 is None)
    if without:
        raise ReleaseError(
            f"The hub lists no SHA-256 for {without[0]}; such weights are not locked."
        )
    return weights


def _pin(file: HubFile, contents: Mapping[str, bytes]) -> PinnedFile:
    if file.sha256 is not None:
        return PinnedFile(file.sha256, file.size_bytes)
    content = contents[file.name]
    return PinnedFile(hashlib.sha256(content).hexdigest(), len(content))
