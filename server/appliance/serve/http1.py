"""Speaks HTTP/1.1 as uvicorn does, with bounds on the head of a request and on slow readers."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import TYPE_CHECKING, cast
from weakref import ref

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from appliance.api.http.errors import error_bytes
from appliance.api.http.gate import DIRECT_BODY

if TYPE_CHECKING:
    from uvicorn._types import ASGI3Application

MAX_HEAD_BYTES = 64 * 1024  # beyond the first read, which the event loop bounds
HEAD_TIMEOUT_S = 30.0
WRITE_TIMEOUT_S = 60.0  # without progress, once the socket's buffers are full


class ChunkedBody:
    """Writes pieces of an answer as uvicorn 0.54 would if it were sent them: see sse.DirectBody."""

    __slots__ = ("_cycle", "_transport")

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = ref(cycle)  # weak, because it holds the scope, which holds this
        self._transport = cycle.transport

    @property
    def is_open(self) -> bool:
        cycle = self._cycle()
        if cycle is None or not cycle.chunked_encoding:  # known after the head is sent
            return False
        return not (cycle.flow.write_paused or cycle.disconnected)

    def write(self, piece: bytes) -> None:
        self._transport.write(b"%x\r\n%b\r\n" % (len(piece), piece))


class BoundedHttpProtocol(HttpToolsProtocol):
    """Cuts connections with endless heads or trailers, or whose client has stopped reading.

    httptools keeps a whole head in memory; uvicorn 0.54 limits neither its size nor its time, nor
    that of a write. Give this to uvicorn as `http`; delete it when uvicorn bounds them itself.
    """

    _answering: RequestResponseCycle | None = (
        None  # later requests of the connection wait in `pipeline`
    )
    _head_timer: asyncio.TimerHandle | None = None  # set while a head is awaited
    _write_timer: asyncio.TimerHandle | None = None  # set while the client reads slowly
    _num_unread_bytes = 0
    _num_loose_bytes = 0  # of a head or trailers, or between the pieces of a body

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)
        self.resume_writing()
        if self._answering is not None:  # uvicorn 0.54 informs only the last request
            self._answering.disconnected = True
            self._answering.message_event.set()

    def data_received(self, data: bytes) -> None:
        self._num_loose_bytes += len(data)  # the parser's callbacks set it to 0
        super().data_received(data)
        if self._num_loose_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self._refuse(
                HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
                f"The request's headers are larger than {MAX_HEAD_BYTES} bytes.",
                code="headers_too_large",
            )

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._await_head()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._head_timer is not None:  # else it is a trailer, which no code here reads
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._stop_timer()
        self._num_loose_bytes = 0
        super().on_headers_complete()
        if self.cycle is not None:
            extensions: dict[str, object] = {DIRECT_BODY: ChunkedBody(self.cycle)}
            self.scope["extensions"] = cast("dict[str, dict[object, object]]", extensions)
        if (
            len(self.pipeline) == 1
        ):  # uvicorn stopped reading, and would miss that the client leaves
            self.flow.resume_reading()

    def on_body(self, body: bytes) -> None:
        self._num_loose_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._num_loose_bytes = 0
        super().on_message_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._await_reading()

    def resume_writing(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None
        super().resume_writing()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._answering = cycle
        super()._start_asgi_task(cycle, app)

    def send_400_response(self, msg: str) -> None:
        self._refuse(HTTPStatus.BAD_REQUEST, "The request is not valid HTTP.", code="invalid_http")

    def _await_head(self) -> None:
        self._stop_timer()
        self._num_loose_bytes = 0
        self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self.transport.close)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _await_reading(self) -> None:
        self._num_unread_bytes = self.transport.get_write_buffer_size()
        self._write_timer = self.loop.call_later(WRITE_TIMEOUT_S, self._check_reading)

    def _check_reading(self) -> None:
        """Wait on for a client that has read since the last check; disconnect one that has not."""
        if self.transport.get_write_buffer_size() < self._num_unread_bytes:
            self._await_reading()
        else:
            self.transport.abort()

    @property
    def _is_answering(self) -> bool:
        cycle = self.cycle
        has_half_answer = cycle is not None and cycle.response_started != cycle.response_complete
        return has_half_answer or bool(self.pipeline)

    def _refuse(self, status: HTTPStatus, message: str, *, code: str) -> None:
        if not self._is_answering:
            body = error_bytes(message, type="invalid_request_error", param=None, code=code)
            self.transport.write(
                b"HTTP/1.1 %d %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n"
                b"connection: close\r\n\r\n%b" % (status, status.phrase.encode(), len(body), body)
            )
        self.transport.close()
