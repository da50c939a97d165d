"""A stand-in for the server behind the chat page: the real page, scripted answers."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
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
TIMEOUT_S = 10
DEFAULT = "embedded"

HASHES = {
    "weights": "4be1d9a0c7f2" + "e3" * 26,
    "tokenizer": "90b7c3215e8d" + "a4" * 26,
    "template": "d2f06a1b9c44" + "17" * 26,
    "server": "7c5e8f3a0b61" + "5d" * 26,
}
ROOT = "e81f0c6d2a95" + "0b" * 26
RUNTIME = {"engine": "torch", "dtype": "float32", "device": "cpu", "threads": 2, "isa": "x86"}
STORY = (
    "Once there was a brave little fox named Pip. Pip lived at the edge of a quiet wood. One day"
    " the river rose, and a small mouse was caught on a stone. Pip was afraid, but she swam to the"
    " stone and carried the mouse home. From that day on they were friends."
)


@dataclass(frozen=True, slots=True)
class FakeModel:
    name: str
    status: str = "ready"
    reason: str = ""
    hashes: Mapping[str, str] = field(default_factory=lambda: HASHES)

    @property
    def is_loaded(self) -> bool:
        return self.status == "ready"

    @property
    def fingerprint(self) -> str | None:
        return "fp_1c9ab84e2d07" if self.is_loaded else None

    def short_hashes(self) -> dict[str, str] | None:
        if not self.is_loaded:
            return None
        return {part: digest[:12] for part, digest in self.hashes.items()}


class FakeAppliance(ScriptedServer):
    """Ready from the start, tells one story; a test changes `models` and `routes` for the rest."""

    def __init__(self) -> None:
        super().__init__()
        self.client_left = threading.Event()
        self.models = [FakeModel(DEFAULT)]
        policy = {"Content-Security-Policy": CHAT_POLICY}
        self.routes["GET /"] = lambda _: file_reply(WEB / "index.html", policy)
        for path in WEB.iterdir():
            self.routes[f"GET /web/{path.name}"] = partial(web_file, path)
        self.routes["GET /health"] = lambda _: json_reply(health(self.models))
        self.routes["GET /v1/models"] = lambda _: json_reply(model_list(self.models))
        self.routes["GET /version"] = lambda _: json_reply(version(self.models))
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


def tell_when(loaded: threading.Event, text: str) -> Answer:
    """Answers with `text`, but not before the model is loaded."""

    def words() -> Iterator[bytes]:
        loaded.wait(TIMEOUT_S)
        yield from chat_events(text)

    return lambda _: stream_reply(words())


def health(models: Sequence[FakeModel]) -> dict[str, object]:
    return {
        "status": "ok",
        "model": models[0].name,
        "generation": None,
        "version": appliance.__version__,
        "fingerprint": models[0].fingerprint,
        "hashes": models[0].short_hashes(),
        "models": [
            {
                "model": model.name,
                "status": model.status,
                "required": model is models[0],
                "reason": model.reason,
            }
            for model in models
        ],
    }


def model_list(models: Sequence[FakeModel]) -> dict[str, object]:
    data = [
        {"id": model.name, "object": "model", "hashes": model.short_hashes()} for model in models
    ]
    return {"object": "list", "data": data}


def version(models: Sequence[FakeModel]) -> dict[str, object]:
    found = [model_version(model) for model in models]
    return {
        "name": "llama-appliance",
        "version": appliance.__version__,
        "generation": None,
        **found[0],
        "models": found,
    }


def model_version(model: FakeModel) -> dict[str, object]:
    return {
        "model": model.name,
        "fingerprint": model.fingerprint,
        "hashes": {**model.hashes, "root": ROOT} if model.is_loaded else None,
        "runtime": RUNTIME if model.is_loaded else None,
    }
