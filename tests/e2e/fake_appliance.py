"""A stand-in for the server behind the chat page: the real page, scripted answers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import appliance
from appliance.api.web.pages import CHAT_POLICY
from tests.unit.cli.scripted_server import (
    Answer,
    Received,
    Reply,
    ScriptedServer,
    chat_event,
    chat_events,
    file_reply,
    json_reply,
    stream_reply,
)

WEB = Path(appliance.__file__).parent / "api" / "web" / "static"
CHAT = "POST /v1/chat/completions"
TICK_S = 0.02

HASHES = {
    "weights": "4be1d9a0c7f2" + "e3" * 26,
    "tokenizer": "90b7c3215e8d" + "a4" * 26,
    "template": "d2f06a1b9c44" + "17" * 26,
    "server": "7c5e8f3a0b61" + "5d" * 26,
}
STORY = (
    "Once there was a brave little fox named Pip. Pip lived at the edge of a quiet wood. One day"
    " the river rose, and a small mouse was caught on a stone. Pip was afraid, but she swam to the"
    " stone and carried the mouse home. From that day on they were friends."
)


class FakeAppliance(ScriptedServer):
    """Ready from the start, tells one story; a test changes `routes` for the rest."""

    def __init__(self) -> None:
        super().__init__()
        self.client_left = threading.Event()
        policy = {"Content-Security-Policy": CHAT_POLICY}
        self.routes["GET /"] = lambda _: file_reply(WEB / "index.html", policy)
        for path in WEB.iterdir():
            self.routes[f"GET /web/{path.name}"] = partial(web_file, path)
        self.routes["GET /health"] = lambda _: json_reply(health())
        self.routes["GET /version"] = lambda _: json_reply(version())
        self.routes[CHAT] = tell(STORY)

    def endless(self, _: Received) -> Reply:
        """Words until the client leaves, which sets `client_left`."""
        return stream_reply(self._words())

    def _words(self) -> Iterator[bytes]:
        try:
            while not self.client_left.wait(TICK_S):
                yield chat_event("again ")
        finally:
            self.client_left.set()


def tell(text: str) -> Answer:
    """Answers with `text`, a word an event."""
    events = chat_events(*(f"{word} " for word in text.split(" ")))
    return lambda _: stream_reply(events)


def web_file(path: Path, _: Received) -> Reply:
    return file_reply(path, {})


def health() -> dict[str, object]:
    return {
        "status": "ok",
        "model": "embedded",
        "generation": None,
        "version": appliance.__version__,
        "fingerprint": "fp_1c9ab84e2d07",
        "hashes": {name: digest[:12] for name, digest in HASHES.items()},
    }


def version() -> dict[str, object]:
    runtime = {"engine": "torch", "dtype": "float32", "device": "cpu", "threads": 2, "isa": "x86"}
    return {"name": "llama-appliance", **health(), "hashes": HASHES, "runtime": runtime}
