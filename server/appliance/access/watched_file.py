"""Reads a file again when it has changed, and keeps what it had if the new one is broken."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from appliance.errors import AccessError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

logger = logging.getLogger(__name__)


class WatchedFile:
    """`load` reads the file, or raises an AccessError that says what is wrong with it."""

    def __init__(self, path: Path, load: Callable[[], None]) -> None:
        self._path = path
        self._load = load
        self._seen = self._look()  # before the load: what changes in between is read again

    def start(self) -> None:
        """Raises what is wrong with the file: a server does not start without it."""
        self._load()

    def refresh(self) -> None:
        seen = self._look()
        if seen == self._seen:
            return
        self._seen = seen
        try:
            self._load()
        except AccessError as error:
            extra = {"file": str(self._path), "why": error.message}
            logger.error("file not read again, the former is kept", extra=extra)  # noqa: TRY400
        else:
            logger.info("file read again", extra={"file": str(self._path)})

    def _look(self) -> tuple[int, int, int] | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino
