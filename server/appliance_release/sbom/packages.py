"""Describes the Python packages of an environment: name, version, package URL, licence."""

from __future__ import annotations

import os
import re
from importlib.metadata import Distribution, PathDistribution
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MAX_LICENSE_CHARS = 100
PACKAGE_FOLDER = "site-packages"
MAX_DEPTH = 6
_CLASSIFIER = "License :: OSI Approved :: "


def site_packages(path: Path) -> list[Path]:
    """Finds the folders of packages in an environment or a store path, or `path` itself."""
    return sorted(folder for folder in _candidates(path) if next(folder.glob("*.dist-info"), None))


def _candidates(path: Path) -> Iterator[Path]:
    """Yields possible package folders: below lib, or deep in libexec."""
    yield path
    for parent, folders, _ in os.walk(path):
        if Path(parent).name == PACKAGE_FOLDER:
            yield Path(parent)
            folders.clear()
        elif len(Path(parent).relative_to(path).parts) >= MAX_DEPTH:
            folders.clear()


def describe_packages(folders: Sequence[Path]) -> Iterator[dict[str, object]]:
    for folder in folders:
        for path in sorted(folder.glob("*.dist-info")):
            if (path / "METADATA").is_file():
                yield _describe(PathDistribution(path))


def _describe(package: Distribution) -> dict[str, object]:
    name = re.sub(r"[-_.]+", "-", package.name).lower()
    purl = f"pkg:pypi/{name}@{quote(package.version)}"
    component: dict[str, object] = {
        "type": "library",
        "bom-ref": purl,
        "name": package.name,
        "version": package.version,
        "purl": purl,
    }
    licenses = _licenses(package)
    return component | ({"licenses": licenses} if licenses else {})


def _licenses(package: Distribution) -> list[dict[str, object]]:
    """Returns the package's SPDX expression, or else the licence that it names."""
    facts = package.metadata
    if expression := _fact(package, "License-Expression"):
        return [{"expression": expression}]
    found = [
        each.removeprefix(_CLASSIFIER)
        for each in facts.get_all("Classifier") or ()
        if each.startswith(_CLASSIFIER)
    ]
    first_line = _fact(package, "License").strip().partition("\n")[0]
    if not found and first_line and first_line != "UNKNOWN":
        found = [first_line[:MAX_LICENSE_CHARS]]
    return [{"license": {"name": name}} for name in sorted(set(found))]


def _fact(package: Distribution, name: str) -> str:
    return next(iter(package.metadata.get_all(name) or ()), "")
