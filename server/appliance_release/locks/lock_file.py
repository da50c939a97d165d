"""Writes locks as JSON that people can review: sorted as given, one pinned file a line."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from appliance.errors import ReleaseError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LOCK_VERSION = 1
INDENT = "  "


def render(value: object) -> str:
    """JSON in which every innermost object has a line, so a changed hash is a changed line."""
    return "".join(_render(value, "")) + "\n"


def write_whole(path: Path, text: str) -> None:
    """Replace the file in one step, rights and all; a reader never sees half of it."""
    waiting = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            waiting.unlink(missing_ok=True)  # of a run that was killed
            with waiting.open("xb") as file:  # follows no link that somebody put there
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
    """What an object or a list holds, each with the text that comes before it."""
    if isinstance(value, dict):
        return [(f"{json.dumps(key, ensure_ascii=False)}: ", each) for key, each in value.items()]
    return [("", each) for each in value] if isinstance(value, list) else []
