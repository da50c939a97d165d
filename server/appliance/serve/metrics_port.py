"""Serves the metrics on a separate port, without a key, which clients need not reach."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

from appliance.metrics import CONTENT_TYPE

if TYPE_CHECKING:
    from asyncio import StreamReader, StreamWriter

    from appliance.metrics import Metrics

MAX_HEAD_BYTES = 8192
TIMEOUT_S = 10.0


async def serve_metrics(metrics: Metrics, listener: socket.socket) -> None:
    """Answer GET /metrics, one request a connection, until cancelled."""

    async def answer(reader: StreamReader, writer: StreamWriter) -> None:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(_respond(head, metrics))
                await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # a client that does not speak HTTP, or has left
        finally:
            writer.close()

    server = await asyncio.start_server(answer, sock=listener, limit=MAX_HEAD_BYTES)
    async with server:
        await server.serve_forever()


def _respond(head: bytes, metrics: Metrics) -> bytes:
    method, _, rest = head.partition(b" ")
    path = rest.partition(b" ")[0].partition(b"?")[0]
    if method not in (b"GET", b"HEAD") or path != b"/metrics":
        return _response(b"404 Not Found", b"text/plain", b"Only GET /metrics is here.\n")
    body = metrics.render()
    return _response(b"200 OK", CONTENT_TYPE.encode(), body if method == b"GET" else b"")


def _response(status: bytes, media_type: bytes, body: bytes) -> bytes:
    return (
        b"HTTP/1.1 %b\r\nContent-Type: %b\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b"
        % (status, media_type, len(body), body)
    )
