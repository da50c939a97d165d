"""A real HTTP server on a free port: it answers what a test tells it and notes its requests."""

from __future__ import annotations

import json
import mimetypes
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Self


@dataclass(frozen=True, slots=True)
class Received:
    route: str  # such as "POST /v1/chat/completions"
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> dict[str, object]:
        value = json.loads(self.body)
        assert isinstance(value, dict)
        return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """Each item of `body` is written on its own, so a generator decides when what is sent."""

    body: Iterable[bytes] = ()
    status: int = 200
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


Answer = Callable[[Received], Reply]


class ScriptedServer:
    """Routes to answers; `with` starts and stops it."""

    def __init__(self, routes: Mapping[str, Answer] | None = None) -> None:
        self.routes: dict[str, Answer] = dict(routes or {})
        self.received: list[Received] = []
        self._http = _HttpServer(("127.0.0.1", 0), _handler_of(self))
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,))
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def answer(self, request: Received) -> Reply:
        self.received.append(request)
        answer = self.routes.get(request.route)
        return answer(request) if answer else refused(404, "There is nothing here.")

    def bodies(self, route: str) -> list[dict[str, object]]:
        return [request.json() for request in self.received if request.route == route]


class _HttpServer(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """A client that leaves is what some tests are about."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


def _handler_of(server: ScriptedServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._reply()

        def do_POST(self) -> None:
            self._reply()

        def _reply(self) -> None:
            size = int(self.headers.get("Content-Length") or 0)
            route = f"{self.command} {self.path.partition('?')[0]}"
            received = Received(route, dict(self.headers), self.rfile.read(size))
            reply = server.answer(received)
            body = iter(reply.body)
            try:
                self._write(reply, body)
            except ConnectionError:
                self.close_connection = True
            finally:
                if hasattr(body, "close"):
                    body.close()

        def _write(self, reply: Reply, body: Iterator[bytes]) -> None:
            self.send_response(reply.status)
            self.send_header("Content-Type", reply.content_type)
            self.send_header("Transfer-Encoding", "chunked")
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.end_headers()
            for chunk in body:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
                self.wfile.flush()
            self.wfile.write(b"0\r\n\r\n")

        def log_message(self, format: str, *args: object) -> None:
            """Tests read `received` instead."""

    return Handler


def json_reply(value: object, status: int = 200) -> Reply:
    return Reply(body=[json.dumps(value).encode()], status=status)


def refused(status: int, message: str) -> Reply:
    return json_reply({"error": {"message": message, "type": "t", "code": "c"}}, status)


def file_reply(path: Path, headers: Mapping[str, str]) -> Reply:
    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return Reply(body=[path.read_bytes()], content_type=kind, headers=headers)


def stream_reply(chunks: Iterable[bytes]) -> Reply:
    return Reply(body=chunks, content_type="text/event-stream")


def event(value: object) -> bytes:
    return f"data: {json.dumps(value)}\n\n".encode()


def chat_event(text: str, finish_reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish_reason}
    return event({"choices": [choice]})


def chat_events(*texts: str, finish_reason: str = "stop", num_tokens: int = 0) -> list[bytes]:
    """A whole streamed chat answer, usage and end mark included."""
    return [
        *map(chat_event, texts),
        chat_event("", finish_reason),
        event({"choices": [], "usage": {"completion_tokens": num_tokens or len(texts)}}),
        b"data: [DONE]\n\n",
    ]
