"""HTTP/1.1 on the wire: uvicorn's protocol, with bounds on the head of a request."""

from __future__ import annotations

import asyncio
from http import HTTPStatus

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from appliance.api.errors import error_bytes

MAX_HEAD_BYTES = 64 * 1024  # beyond the first read, which the event loop bounds
HEAD_TIMEOUT_S = 30.0


class BoundedHttpProtocol(HttpToolsProtocol):
    """Cuts connections whose request line and headers are endless or never end.

    httptools keeps all of a head in memory, and uvicorn 0.54 sets it neither limit nor time. Give
    it to uvicorn as `http`; delete it when uvicorn bounds them itself.
    """

    _head_timer: asyncio.TimerHandle | None = None  # there is one while a head is awaited
    _num_head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        awaited = self._head_timer
        super().data_received(data)
        if awaited is None or awaited is not self._head_timer or self.transport.is_closing():
            return
        self._num_head_bytes += len(data)
        if self._num_head_bytes > MAX_HEAD_BYTES:
            self._refuse(
                HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
                f"The request's headers are larger than {MAX_HEAD_BYTES} bytes.",
                code="headers_too_large",
            )

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._await_head()

    def on_headers_complete(self) -> None:
        self._stop_timer()
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        self._refuse(HTTPStatus.BAD_REQUEST, "The request is not valid HTTP.", code="invalid_http")

    def _await_head(self) -> None:
        self._stop_timer()
        self._num_head_bytes = 0
        self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self.transport.close)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _refuse(self, status: HTTPStatus, message: str, *, code: str) -> None:
        body = error_bytes(message, type="invalid_request_error", param=None, code=code)
        self.transport.write(
            b"HTTP/1.1 %d %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n"
            b"connection: close\r\n\r\n%b" % (status, status.phrase.encode(), len(body), body)
        )
        self.transport.close()
