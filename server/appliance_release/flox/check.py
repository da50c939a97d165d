"""Checks Flox environments without Flox: manifest, env.json, lock and package files."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from appliance.errors import ReleaseError, SettingsError
from appliance_release.flox.lines import KeyPath, Span, locate_keys
from appliance_release.flox.packages import check_packages
from appliance_release.flox.rules import Manifest, check_rules, table, text
from appliance_release.flox.schema import ENVIRONMENT_NAME, MANIFEST
from appliance_release.flox.types import (
    NEWEST,
    VERSIONS,
    Complaint,
    key_name,
    show,
)
from appliance_release.locks.lock_file import read_object

MAX_FILE_BYTES = 1_000_000
LINE_OF_ERROR = re.compile(r" \(at line (\d+), column \d+\)")


@dataclass(frozen=True, slots=True)
class Finding:
    """A complaint and its place."""

    file: Path
    line: int
    key: str
    severity: Literal["error", "warning"]
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.severity}: {self.message}"


def find_manifests(path: Path) -> list[Path]:
    """Finds the manifest at `path`, or those of all environments in a directory."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise SettingsError(f"{path} does not exist. Name a manifest.toml, or a directory.")
    found = []
    for folder, names, _ in os.walk(path):
        manifest = Path(folder, ".flox", "env", "manifest.toml")
        if ".flox" in names and manifest.is_file():
            found.append(manifest)
        names[:] = sorted(name for name in names if not name.startswith("."))
    if not found:
        raise SettingsError(f"{path} holds no Flox environment: no .flox/env/manifest.toml in it.")
    return found


def check_environment(manifest_file: Path) -> list[Finding]:
    """Checks one manifest, and the rest of its environment if it is in one."""
    findings, manifest = check_manifest(manifest_file)
    folder = environment_folder(manifest_file)
    if folder is not None:
        findings += check_description(folder / "env.json")
        findings += check_lock(folder / "env" / "manifest.lock", manifest)
        for file, complaint in check_packages(folder / "pkgs", table(manifest, "build")):
            findings.append(Finding(file, 1, file.stem, complaint.severity, complaint.message))
    return findings


def environment_folder(manifest_file: Path) -> Path | None:
    """Returns the `.flox` that a manifest is in, or None."""
    env = manifest_file.absolute().parent
    if env.name != "env" or env.parent.name != ".flox":
        return None
    # As the caller wrote it, if the caller wrote as much.
    return manifest_file.parent.parent if ".flox" in manifest_file.parts else env.parent


def check_manifest(file: Path) -> tuple[list[Finding], Manifest]:
    """Returns the findings of a manifest, and the values that tomllib reads."""
    try:
        source = read_text(file)
        manifest = tomllib.loads(source)
    except tomllib.TOMLDecodeError as error:
        found = LINE_OF_ERROR.search(str(error))
        line = int(found[1]) if found else source.count("\n") + 1
        message = LINE_OF_ERROR.sub("", str(error))
        return [Finding(file, line, "", "error", f"This is not TOML: {message}.")], {}
    except (OSError, ValueError, RecursionError) as error:
        return [Finding(file, 1, "", "error", f"The manifest cannot be read: {error}.")], {}
    version, complaints = check_version(manifest)
    schema_complaints = list(MANIFEST.check(manifest, (), version))
    if not complaints and not schema_complaints:
        complaints += newer_than_needed(manifest, version)
    complaints += schema_complaints
    folder = environment_folder(file)
    complaints += check_rules(manifest, None if folder is None else folder.parent)
    spans = locate_keys(source)
    findings = [finding(file, source, spans, each) for each in complaints]
    return sorted(findings, key=lambda each: each.line), manifest


def read_text(file: Path) -> str:
    if file.stat().st_size > MAX_FILE_BYTES:
        raise ValueError(f"it is larger than {MAX_FILE_BYTES} bytes")
    return file.read_text(encoding="utf-8")


def check_version(manifest: Manifest) -> tuple[str, list[Complaint]]:
    """Returns the schema version to check by: the declared one, or the newest."""
    known = f"version = 1, or schema-version = one of {', '.join(VERSIONS[1:])}"
    old, new = manifest.get("version"), manifest.get("schema-version")
    is_old = type(old) is int and old == 1 and new is None
    message = None
    if old is not None and new is not None:
        message = f"schema-version is {show(new)} and version is {show(old)}: keep one of them."
    elif old is not None and not is_old:
        message = f"version is {show(old)}; it must be 1, or write {known}."
    elif new is None and not is_old:
        message = f"The schema version is missing: {known}."
    elif not is_old and new not in VERSIONS[1:]:
        message = (
            f"schema-version is {show(new)}; it must be {known}. Newer ones are not known here."
        )
    key: KeyPath = ("schema-version",) if new is not None else ("version",)
    version = "1" if is_old else str(new) if new in VERSIONS[1:] else NEWEST
    return version, [] if message is None else [Complaint(key, message)]


def newer_than_needed(manifest: Manifest, version: str) -> Iterator[Complaint]:
    """Finds a schema version that excludes older versions of Flox without need."""
    older = VERSIONS[1 : VERSIONS.index(version)]
    enough = (each for each in older if not any(MANIFEST.check(manifest, (), each)))
    if (needed := next(enough, None)) is not None:
        yield Complaint(
            ("schema-version",),
            f'schema-version is "{version}", which Flox before {version} refuses, and nothing here '
            f"needs more than {needed}.",
            severity="warning",
        )


def finding(file: Path, source: str, spans: dict[KeyPath, Span], complaint: Complaint) -> Finding:
    line = 1
    path = complaint.path
    while path and path not in spans:
        path = path[:-1]
    if path:
        line = spans[path].first
        lines = source.split("\n")[line - 1 : spans[path].last]
        marked = (
            n for n, each in enumerate(lines) if complaint.marked and complaint.marked in each
        )
        line += next(marked, 0)
    return Finding(file, line, key_name(complaint.path), complaint.severity, complaint.message)


def check_description(file: Path) -> Iterator[Finding]:
    """Checks env.json, which names the environment."""

    def error(key: str, message: str) -> Finding:
        return Finding(file, 1, key, "error", message)

    if not file.exists():
        yield error("", 'env.json is missing; it says {"name": "NAME", "version": 1}.')
        return
    try:
        found = read_object(file)
    except ReleaseError as problem:
        yield error("", problem.message)
        return
    name = found.get("name")
    if not isinstance(name, str) or not re.fullmatch(ENVIRONMENT_NAME, name):
        message = f"name is {show(name)}; it must be of letters, digits, '.', '_' and '-'."
        yield error("name", message)
    elif found.get("version") != 1:
        yield error("version", f"version is {show(found.get('version'))}; it must be 1.")


def check_lock(file: Path, manifest: Manifest) -> Iterator[Finding]:
    """Checks that manifest.lock is there, is Flox's, and belongs to this manifest."""
    if not file.exists():
        message = (
            "manifest.lock is missing: it holds what the packages resolve to, and `flox publish` "
            "wants it tracked. `flox activate` writes it, with the network; commit it."
        )
        yield Finding(file, 1, "", "warning", message)
        return
    try:
        found = read_object(file)
    except ReleaseError as problem:
        yield Finding(file, 1, "", "error", problem.message)
        return
    if found.get("lockfile-version") != 1:
        message = "manifest.lock has no lockfile-version 1; let Flox write it again."
        yield Finding(file, 1, "lockfile-version", "error", message)
        return
    packages = found.get("packages")
    rows = packages if isinstance(packages, list) else []
    locked = {text(table(each), "install_id") for each in rows}
    for name in table(manifest, "install"):
        if name not in locked:
            message = (
                f"install.{name} is not in manifest.lock, which is older than the manifest. "
                "`flox activate` brings it up to date; commit it."
            )
            yield Finding(file, 1, f"install.{name}", "warning", message)
