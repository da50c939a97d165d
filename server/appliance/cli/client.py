"""Sends requests to an OpenAI-compatible server and reads its answers as they stream."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from appliance import __version__
from appliance.errors import ApplianceError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

Json = Mapping[str, object]

# A server queues and computes a first token in less; a stream that is silent this long is dead.
SILENCE_TIMEOUT_S = 300.0
MAX_ERROR_BYTES = 64 * 1024


class ServerError(ApplianceError):
    """The server is unreachable, refused or broke off; the message is for the terminal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """One streamed event: text, and on the last ones the finish reason and the token count."""

    text: str = ""
    finish_reason: str | None = None
    completion_tokens: int | None = None


class Client:
    """Talks to one server. Closing a stream closes its connection, which cancels the answer."""

    def __init__(self, url: str, *, api_key: str | None = None) -> None:
        self.url = url if "://" in url else f"http://{url}"
        try:
            parts = urlsplit(self.url)
            self._port = parts.port
        except ValueError:
            raise SettingsError(f"--url is {url!r}, which is not a URL.") from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise SettingsError(f"--url is {url!r}; it must look like http://127.0.0.1:8000.")
        self._is_https = parts.scheme == "https"
        self._host = parts.hostname
        self._base_path = versioned(parts.path)
        self._headers = {
            "Content-Type": "application/json",
            "User-Agent": f"appliance/{__version__}",
        }
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"

    def first_model(self) -> str:
        """Return the name of the first model that the server offers."""
        with self._open("GET", "/models", None) as response:
            models = _items(_parse(response.read()), "data")
        if not models:
            raise ServerError(f"{self.url} offers no model; name one with --model.")
        return str(models[0].get("id"))

    def stream(self, path: str, body: Json) -> Generator[Piece, None, None]:
        """Yield the answer to POST `path` by pieces; raise ServerError unless it ends properly."""
        payload = {**body, "stream": True, "stream_options": {"include_usage": True}}
        is_finished = False
        with self._open("POST", path, json.dumps(payload).encode()) as response:
            for data in events(response):
                if data == "[DONE]":
                    return
                piece = piece_of(_parse(data))
                is_finished = is_finished or piece.finish_reason is not None
                yield piece
        if not is_finished:
            raise ServerError(f"{self.url} broke off before the answer was complete.")

    @contextmanager
    def _open(
        self, method: str, path: str, body: bytes | None
    ) -> Iterator[http.client.HTTPResponse]:
        connect = http.client.HTTPSConnection if self._is_https else http.client.HTTPConnection
        connection = connect(self._host, self._port, timeout=SILENCE_TIMEOUT_S)
        with closing(connection):
            try:
                connection.request(method, self._base_path + path, body, self._headers)
                response = connection.getresponse()
                if response.status != http.client.OK:
                    raise refusal(response.status, response.read(MAX_ERROR_BYTES))
                yield response
            except ConnectionRefusedError:
                raise ServerError(
                    f"Nothing listens at {self.url}. Start a server with `appliance serve`,"
                    " or name another with --url."
                ) from None
            except TimeoutError:
                raise ServerError(f"{self.url} was silent for {SILENCE_TIMEOUT_S:g} s.") from None
            except (OSError, http.client.HTTPException) as error:
                reason = str(error) or type(error).__name__
                raise ServerError(f"The connection to {self.url} failed: {reason}.") from None


def versioned(path: str) -> str:
    """Return the API's path: as given if it ends in a version such as /v1, else with /v1 added."""
    path = path.rstrip("/")
    return path if re.search(r"/v\d+\w*$", path) else f"{path}/v1"


def events(lines: Iterator[bytes] | http.client.HTTPResponse) -> Iterator[str]:
    """Yield the data of each server-sent event; skip comments and other fields."""
    data: list[str] = []
    for raw in lines:
        line = raw.decode("utf-8", "replace").rstrip("\r\n")
        if line.startswith("data:"):
            data.append(line.removeprefix("data:").removeprefix(" "))
        elif not line and data:
            yield "\n".join(data)
            data = []


def piece_of(event: Json) -> Piece:
    """Read a chunk of a chat or text completion; raise an error that was sent midway."""
    if "error" in event:
        raise ServerError(message_of(event) or "The server failed midway.")
    choice: Json = next(iter(_items(event, "choices")), {})
    delta = choice.get("delta")
    text = delta.get("content") if isinstance(delta, Mapping) else choice.get("text")
    reason = choice.get("finish_reason")
    usage = event.get("usage")
    tokens = usage.get("completion_tokens") if isinstance(usage, Mapping) else None
    return Piece(
        text=text if isinstance(text, str) else "",
        finish_reason=reason if isinstance(reason, str) else None,
        completion_tokens=tokens if isinstance(tokens, int) else None,
    )


def refusal(status: int, body: bytes) -> ServerError:
    """Return an error with the server's own message if it sent one."""
    try:
        message = message_of(_parse(body))
    except ServerError:
        message = None
    reason = http.client.responses.get(status, "an unknown status")
    return ServerError(f"{message or f'The server answered: {reason}.'} (HTTP {status})")


def message_of(body: Json) -> str | None:
    error = body.get("error")
    message = error.get("message") if isinstance(error, Mapping) else error or body.get("detail")
    return message if isinstance(message, str) else None


def _parse(data: bytes | str) -> Json:
    try:
        value = json.loads(data)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise ServerError("The server's answer is not the JSON of an OpenAI-compatible API.")
    return value


def _items(body: Json, name: str) -> list[Json]:
    items = body.get(name)
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []
