"""Reads our JSON files strictly, and writes them for review: one pinned file a line."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from appliance.errors import ModelRefused, ReleaseError
from appliance.models.directory import json_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from appliance.models.directory.json_file import JsonObject

MAX_BYTES = 16_000_000
LOCK_VERSION = 1
INDENT = "  "


def read_object(path: Path) -> JsonObject:
    """Reads the JSON object in a file; raises ReleaseError, as `parse_object` does."""
    return parse_object(read_bytes(path, max_bytes=MAX_BYTES), str(path))


def read_bytes(path: Path, *, max_bytes: int) -> bytes:
    try:
        return json_file.read_bytes(path, max_bytes=max_bytes)
    except ModelRefused as error:
        raise ReleaseError(error.message) from None


def parse_object(content: bytes, name: str) -> JsonObject:
    """Parses untrusted JSON: one object, in which no key comes twice."""
    try:
        return json_file.parse_json_object(content, name=name)
    except ModelRefused as error:
        raise ReleaseError(error.message) from None


def render(value: object) -> str:
    """Writes JSON with a line for every innermost object, so a changed hash changes a line."""
    return "".join(_render(value, "")) + "\n"


def write_whole(path: Path, text: str) -> None:
    """Replaces the file in one step and keeps its mode; no reader sees half of it."""
    waiting = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            waiting.unlink(missing_ok=True)  # left by a run that was killed
            with waiting.open("xb") as file:  # does not follow a link at that place
                file.write(text.encode())
                file.flush()
                os.fsync(file.fileno())
            if path.exists():
                waiting.chmod(path.stat().st_mode & 0o7777)
            waiting.replace(path)
        finally:
            waiting.unlink(missing_ok=True)
    except OSError as error:
        raise ReleaseError(f"{path} cannot be written: {error.strerror}.") from None


def _render(value: object, indent: str) -> Iterator[str]:
    items = _items(value)
    if not items or (indent and not any(_items(child) for _, child in items)):
        yield json.dumps(value, ensure_ascii=False)
        return
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    for number, (key, child) in enumerate(items):
        yield f"{',' if number else opening}\n{indent}{INDENT}{key}"
        yield from _render(child, indent + INDENT)
    yield f"\n{indent}{closing}"


def _items(value: object) -> list[tuple[str, object]]:
    """Returns the values of an object or a list, each with the text before it."""
    if isinstance(value, dict):
        return [(f"{json.dumps(key, ensure_ascii=False)}: ", each) for key, each in value.items()]
    return [("", each) for each in value] if isinstance(value, list) else []
