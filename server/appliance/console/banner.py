"""Writes the banner that the terminal shows once a server is ready."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from appliance.console.ink import Ink, printable, short_hash

if TYPE_CHECKING:
    from collections.abc import Iterator

LABEL_WIDTH = 12
ROOM = 80 - 2 - LABEL_WIDTH  # beside a label, in a terminal of 80 columns
QUANTIZED = ("int8", "int4")
DEFAULT_PORT = 8000
EVERY_INTERFACE = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104 - compared, not bound


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningModel:
    """The facts of one model; only name and note of one that is not loaded."""

    name: str
    num_parameters: int | None = None
    weight_bytes: int = 0
    dtype: str = ""
    device: str = ""
    runner: str = ""
    threads: int = 0
    note: str | None = None  # on the choice of the runner
    hashes: Mapping[str, str | None] = field(default_factory=dict)
    max_context_tokens: int | None = None
    wanted_context_tokens: int | None = None  # where memory allowed fewer


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """The facts of a server that has just become ready; its default model first."""

    version: str
    host: str
    port: int
    models: tuple[RunningModel, ...]
    generation: str | None = None
    start_time_s: float | None = None
    is_secure: bool = False
    wants_key: bool = False


def banner(running: Running, ink: Ink) -> str:
    """Return what is running, where, and what to do next; the address has its own line."""
    url = url_of(running.host, running.port, is_secure=running.is_secure)
    key = " -H 'Authorization: Bearer KEY'" if running.wants_key else ""
    flag = "" if running.port == DEFAULT_PORT else f" --url {url}"
    lines = [
        "",
        f"  {ink.bold('Llama Appliance')} {running.version}{ready_in(running.start_time_s)}",
        "",
        f"  {ink.accent(url)}",
        "",
        *(each for model in running.models for each in model_rows(model, ink)),
        *place_rows(running, ink),
        "",
        row(ink, "chat", "open the address in a browser, or run"),
        row(ink, "", f"appliance chat{flag}"),
        row(ink, "API", f"{url}/docs"),
        row(ink, "try", "paste this"),
        "",
        f"curl {url}/generate -H 'Content-Type: application/json'{key} \\",
        """  -d '{"prompt": "Once upon a time", "max_new_tokens": 80}'""",
        "",
        row(ink, "stop", "Ctrl-C"),
        "",
    ]
    return "\n".join(lines)


def url_of(host: str, port: int, *, is_secure: bool = False) -> str:
    """Return an address for this machine, also if the server listens on all interfaces."""
    name = EVERY_INTERFACE.get(host, f"[{host}]" if ":" in host else host)
    return f"http{'s' if is_secure else ''}://{name}:{port}"


def model_rows(model: RunningModel, ink: Ink) -> Iterator[str]:
    if model.num_parameters is None:
        note = f", {model.note}"
        yield row(ink, "model", shorten(model.name, ROOM - len(note)) + note)
        return
    threads = f"{model.threads} thread{'' if model.threads == 1 else 's'}"
    where = f"{model.device}, {threads}" if model.device == "cpu" else model.device
    size = f", {count(model.num_parameters)} parameters, {megabytes(model.weight_bytes)}"
    yield row(ink, "model", shorten(model.name, ROOM - len(size)) + size)
    kind = f"{model.dtype} weights" if model.dtype in QUANTIZED else model.dtype
    yield row(ink, "computing", f"{kind} on {where}, {model.runner} runner")
    if model.note is not None:
        yield row(ink, "", shorten(model.note, ROOM))
    if model.wanted_context_tokens is not None:
        found, wanted = model.max_context_tokens, model.wanted_context_tokens
        yield row(
            ink, "context", f"{found:,} tokens, not {wanted:,}: as many as memory has room for"
        )


def place_rows(running: Running, ink: Ink) -> Iterator[str]:
    if running.host in EVERY_INTERFACE:
        yield row(ink, "listening", "on every interface of this machine")
    generation = running.generation or "none: not started from an environment"
    yield row(ink, "generation", shorten(generation, ROOM))
    for model in running.models:
        if len(running.models) > 1 and model.hashes:
            yield row(ink, "hashes of", shorten(model.name, ROOM))
        yield from hash_rows(model.hashes, ink, "hashes" if len(running.models) == 1 else "")


def hash_rows(hashes: Mapping[str, str | None], ink: Ink, label: str) -> Iterator[str]:
    """Two hashes a line, each as short as the API shows it."""
    cells = [f"{name:10}{short_hash(digest):12}" for name, digest in hashes.items()]
    for start in range(0, len(cells), 2):
        pair = "    ".join(cells[start : start + 2])
        yield row(ink, label if start == 0 else "", pair.rstrip())


def row(ink: Ink, label: str, text: str) -> str:
    return f"  {ink.dim(label.ljust(LABEL_WIDTH))}{text}"


def shorten(text: str, length: int) -> str:
    """Cut names that come from a model directory or the environment."""
    text = printable(text)
    return text if len(text) <= length else text[: length - 1] + "…"


def count(number: int) -> str:
    for size, word in ((10**9, "billion"), (10**6, "million")):
        if number >= size:
            return f"{number / size:.1f} {word}"
    return f"{number:,}"


def megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:.1f} GB" if size_bytes >= 10**9 else f"{size_bytes / 1e6:.0f} MB"


def ready_in(start_time_s: float | None) -> str:
    return "" if start_time_s is None else f", ready in {start_time_s:.1f} s"
