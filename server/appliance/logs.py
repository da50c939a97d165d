"""Writes each event as one line of JSON with its request's id, and never logs user content.

Log with the standard library: a constant name, and variable parts in `extra`:
    logger.info("request_finished", extra={"num_new_tokens": 12})

This module keeps prompts and answers out, so that callers need not: it never formats the name; it
cuts long text fields; it drops fields whose names suggest user text; of a library's message it
keeps the first line, and of an exception the type and the frames, and the message only if torch or
the operating system wrote it.
"""

from __future__ import annotations

import json
import logging
import math
import sys
import traceback
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)

MAX_TEXT_CHARS = 500
MAX_ITEMS = 50
MAX_FRAMES = 20

# Fields with these names would hold user content or answers.
FORBIDDEN_FIELDS = frozenset({
    "prompt", "prompts", "messages", "content", "text", "input", "output", "answer", "body",
    "completion", "generated_text", "delta", "arguments", "stop", "schema", "template",
})  # fmt: skip

# ValueError, KeyError and similar quote their argument; these errors describe the machine.
_SPEAKING_ERRORS = (OSError, MemoryError, RuntimeError)
_OWN_LOGGER = "appliance"
_STANDARD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {
    "message", "asctime", "taskName", "color_message",
}  # fmt: skip


def configure_logging(level: str) -> None:
    """Send everything to stderr as JSON lines: our events from `level` up, warnings of libraries.

    Start uvicorn with log_config=None and access_log=False: the HTTP edge logs requests.
    """
    handler = StderrHandler()
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers = [handler]
    own_level = logging.getLevelNamesMapping()[level.upper()]
    root.setLevel(max(own_level, logging.WARNING))
    logging.getLogger(_OWN_LOGGER).setLevel(own_level)
    logging.captureWarnings(capture=True)


class StderrHandler(logging.Handler):
    """Writes to the current sys.stderr; a line that cannot be written is lost."""

    def emit(self, record: logging.LogRecord) -> None:
        if sys.stderr is None:  # Python does so if the descriptor was closed at the start
            return
        line = self.format(record) + "\n"
        try:
            sys.stderr.write(line)
            sys.stderr.flush()
        except (OSError, ValueError):  # closed, or without a reader: no reason to fail a request
            return


class JsonFormatter(logging.Formatter):
    """Formats a record as a line of JSON: ts, level, event, request_id, the fields of `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            **_describe_event(record),
        }
        if (current := request_id.get()) is not None:
            line["request_id"] = _clean(current)
        for name, value in vars(record).items():
            if name not in _STANDARD_FIELDS and name not in FORBIDDEN_FIELDS:
                line.setdefault(name, _clean(value))
        if record.exc_info and record.exc_info[1] is not None:
            line["error"] = list(_describe_errors(record.exc_info[1]))
        return json.dumps(line, separators=(",", ":"))


def _describe_event(record: logging.LogRecord) -> dict[str, object]:
    if record.name == _OWN_LOGGER or record.name.startswith(f"{_OWN_LOGGER}."):
        return {"event": _clean(record.msg)}  # a constant; were it formatted, arguments could leak
    return {"event": "library_message", "logger": record.name, "message": _first_line(record)}


def _first_line(record: logging.LogRecord) -> str:
    """Return the first line: asyncio writes the repr of a task with its exception below it."""
    try:
        text = record.getMessage()
    except (TypeError, ValueError, KeyError):  # the arguments do not fit the format
        text = str(record.msg)
    return (text.strip().splitlines() or [""])[0][:MAX_TEXT_CHARS]


def _clean(value: object) -> object:
    """Return numbers, short texts and collections of them; of all else the name of the type."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, str | Path):
        text = str(value)
        return text if len(text) <= MAX_TEXT_CHARS else f"{text[:MAX_TEXT_CHARS]}…"
    if isinstance(value, list | tuple | set | frozenset):
        return [_clean(item) for item in list(value)[:MAX_ITEMS]]
    if isinstance(value, dict):
        items = list(value.items())[:MAX_ITEMS]
        return {str(k): _clean(v) for k, v in items if str(k) not in FORBIDDEN_FIELDS}
    return type(value).__name__


def _describe_errors(error: BaseException) -> Iterator[dict[str, object]]:
    """Yield the exception and its causes, outermost first."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen and len(seen) < MAX_FRAMES:
        seen.add(id(current))
        frames = traceback.extract_tb(current.__traceback__)[-MAX_FRAMES:]
        described: dict[str, object] = {
            "type": type(current).__name__,
            "frames": [f"{Path(f.filename).name}:{f.lineno} in {f.name}" for f in frames],
        }
        if isinstance(current, _SPEAKING_ERRORS):
            described["message"] = _clean(str(current))
        yield described
        current = current.__cause__ or current.__context__
