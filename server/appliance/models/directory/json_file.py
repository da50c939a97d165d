"""Reads JSON written by strangers: within a size, each key once, refused by file name."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from typing import TYPE_CHECKING

from appliance.errors import ModelRefused

if TYPE_CHECKING:
    from pathlib import Path

JsonObject = dict[str, object]

MAX_DEPTH = 64


def read_json_object(path: Path, *, max_bytes: int) -> JsonObject:
    """The object in the file at `path`, of any depth."""
    return parse_json_object(read_bytes(path, max_bytes=max_bytes), name=path.name)


def read_shallow_json_object(path: Path, *, max_bytes: int) -> JsonObject:
    """The object in the file at `path`, safe to walk recursively and to encode as UTF-8."""
    found = read_json_object(path, max_bytes=max_bytes)
    for depth, value in _walk(found):
        if depth > MAX_DEPTH:
            raise ModelRefused(f"{path.name} is nested deeper than {MAX_DEPTH} levels.")
        if isinstance(value, str):
            _refuse_half_characters(value, path.name)
    return found


def read_bytes(path: Path, *, max_bytes: int) -> bytes:
    """All of a regular file; anything else (a pipe would block for ever) is refused unopened."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ModelRefused(f"{path.name} is not a regular file.")
        with path.open("rb") as file:
            content = file.read(max_bytes + 1)
    except OSError as error:
        raise unreadable(path, error) from None
    if len(content) > max_bytes:
        raise ModelRefused(f"{path.name} is too large; at most {max_bytes:,} bytes are read.")
    return content


def unreadable(path: Path, error: OSError) -> ModelRefused:
    if isinstance(error, FileNotFoundError) and path.is_symlink():
        return ModelRefused(
            f"{path.name} is a link to a file that does not exist. The download is incomplete;"
            " fetch the model again."
        )
    return ModelRefused(f"{path.name} cannot be read: {error.strerror or type(error).__name__}.")


def parse_json_object(content: bytes, *, name: str) -> JsonObject:
    try:
        found: object = json.loads(
            content.decode("utf-8"), object_pairs_hook=lambda pairs: _unique(pairs, name)
        )
    except UnicodeDecodeError:
        raise ModelRefused(f"{name} is not JSON: it is not UTF-8 text.") from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno} column {error.colno}"
        raise ModelRefused(f"{name} is not JSON: {error.msg} at {place}.") from None
    except (ValueError, RecursionError):  # a number of thousands of digits, thousands of brackets
        raise ModelRefused(f"{name} holds a number too long or brackets nested too deep.") from None
    if not isinstance(found, dict):
        raise ModelRefused(f"{name} must hold a JSON object, not a {type(found).__name__}.")
    return found


def _unique(pairs: list[tuple[str, object]], name: str) -> JsonObject:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    seen: set[str] = set()
    for key, _ in pairs:  # names the first key that comes twice
        if key in seen:
            break
        seen.add(key)
    raise ModelRefused(f"{name} holds the key {key[:200]!r} twice; readers would disagree.")


def _walk(root: object) -> Iterator[tuple[int, object]]:
    """Every key and value below `root` with its depth, without recursion."""
    waiting: list[tuple[int, object]] = [(0, root)]
    while waiting:
        depth, value = waiting.pop()
        yield depth, value
        if isinstance(value, dict):
            waiting.extend((depth + 1, child) for pair in value.items() for child in pair)
        elif isinstance(value, list):
            waiting.extend((depth + 1, child) for child in value)


def _refuse_half_characters(text: str, name: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise ModelRefused(
            f"{name} holds half of a surrogate pair (\\ud800 to \\udfff), which is no text."
        ) from None


def holds_key(root: object, key: str) -> bool:
    """True when any object below `root` has `key`."""
    return any(isinstance(value, dict) and key in value for _, value in _walk(root))
