"""Reads the small JSON files that configure access control."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from appliance.errors import AccessError

if TYPE_CHECKING:
    from pathlib import Path

MAX_FILE_BYTES = 5_000_000


def read_object(path: Path) -> dict[str, object]:
    """The object in a file; an AccessError says why there is none."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise AccessError(f"{path} cannot be read: {error.strerror}.") from None
    if len(data) > MAX_FILE_BYTES:
        raise AccessError(f"{path} is larger than {MAX_FILE_BYTES} bytes.")
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise AccessError(f"{path} is not JSON: {str(error)[:100]}.") from None
    if not isinstance(value, dict):
        raise AccessError(f"{path} must hold a JSON object.")
    return value
