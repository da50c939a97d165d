"""Finds and rewrites the pin of an overlay, which is one line of one file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from appliance.errors import ReleaseError
from appliance_release.locks.lock_file import write_whole
from appliance_release.pins.reference import ANNOTATION

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OVERLAYS = "overlays"
_LINE = re.compile(
    rf"""^(?P<before>\s*["']?{re.escape(ANNOTATION)}["']?:[ ]*)"""
    r"""(?P<quote>["']?)(?P<value>[^"'\#\s]*)(?P=quote)(?P<after>\s*(\#.*)?)$""",
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """The pin of an overlay. `value` is as written, pinned or not."""

    overlay: str
    path: Path
    line: int
    value: str

    @property
    def where(self) -> str:
        return f"{self.path}:{self.line}"


def find_pins(directory: Path) -> list[Pin]:
    """Finds the pins of every overlay, then of the manifests that need no kustomize."""
    if not directory.is_dir():
        raise ReleaseError(
            f"{directory} is not a directory. Name the one with the manifests: --directory DIR."
        )
    folders = sorted(path.parent for path in directory.glob(f"{OVERLAYS}/*/kustomization.yaml"))
    pins = [_only_pin(folder.name, sorted(folder.rglob("*.yaml")), folder) for folder in folders]
    for path in sorted(directory.glob("*.yaml")):
        found = list(_pins_in(path.stem, path))
        if found:
            pins.append(_only_pin(path.stem, [path], path))
    if not pins:
        raise ReleaseError(f"No file under {directory} has a {ANNOTATION} line.")
    return pins


def find_pin(directory: Path, overlay: str) -> Pin:
    pins = find_pins(directory)
    for pin in pins:
        if pin.overlay == overlay:
            return pin
    known = ", ".join(pin.overlay for pin in pins)
    raise ReleaseError(f"There is no overlay {overlay!r} under {directory}. There are: {known}.")


def write_pin(pin: Pin, value: str) -> Pin:
    """Rewrites the value and nothing else; replaces the file whole or not at all."""
    text = _read(pin.path)
    lines = text.splitlines(keepends=True)
    body = lines[pin.line - 1].rstrip("\r\n")
    ending = lines[pin.line - 1][len(body) :]
    match = _LINE.match(body)
    if match is None or match["value"] != pin.value:
        raise ReleaseError(f"{pin.where} has changed meanwhile. Try again.")
    lines[pin.line - 1] = f'{match["before"]}"{value}"{match["after"]}{ending}'
    write_whole(pin.path, "".join(lines))
    return Pin(overlay=pin.overlay, path=pin.path, line=pin.line, value=value)


def _only_pin(overlay: str, files: list[Path], where: Path) -> Pin:
    found = [pin for path in files for pin in _pins_in(overlay, path)]
    if len(found) == 1:
        return found[0]
    if not found:
        raise ReleaseError(f"{where} has no {ANNOTATION} line. Add one as its pin.")
    places = " and ".join(pin.where for pin in found)
    raise ReleaseError(f"{overlay} is pinned more than once: {places}. Keep one of the lines.")


def _pins_in(overlay: str, path: Path) -> Iterator[Pin]:
    for number, line in enumerate(_read(path).splitlines(), start=1):
        if match := _LINE.match(line):
            yield Pin(overlay=overlay, path=path, line=number, value=match["value"])


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise ReleaseError(f"{path} cannot be read: {error}.") from None
