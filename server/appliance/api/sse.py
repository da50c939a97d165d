"""Server-sent events: writes a completion as it grows, for as long as someone reads.

A slow client slows only itself: the next delta is taken when the socket took the last one.
Meanwhile the answer waits in its stream, which holds no more than its own number of tokens; when
many wait, they come as one delta.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from typing import Protocol

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from appliance.api.disconnect import run_while_connected
from appliance.api.errors import failure_bytes
from appliance.completion import CompletionRequest, CompletionService, CompletionStream, Delta
from appliance.errors import ServiceError

logger = logging.getLogger(__name__)

DONE = b"data: [DONE]\n\n"
NumberedDelta = tuple[int, Delta]  # the number is that of its stream
Arrivals = asyncio.Queue[tuple[int, Delta | Exception | None]]

HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


def json_bytes(value: object) -> bytes:
    """Compact JSON in ASCII: no byte of a text can be taken for the end of a line of the stream."""
    return json.dumps(value, separators=(",", ":")).encode()


class Renderer(Protocol):
    """How one face of the API writes a stream."""

    def begin(self, streams: Sequence[CompletionStream]) -> Iterator[bytes]:
        """What comes before the first delta, which is known to be there."""

    def render(self, delta: Delta, stream_number: int) -> Iterator[bytes]: ...

    def end(self, streams: Sequence[CompletionStream]) -> Iterator[bytes]:
        """What comes after the last delta, `[DONE]` included."""


class EventStream(Response):
    """Writes one or more completions; whatever happens, they are closed at the end."""

    media_type = "text/event-stream"

    def __init__(
        self,
        streams: Sequence[CompletionStream],
        first: NumberedDelta | None,
        rest: AsyncGenerator[NumberedDelta, None],
        renderer: Renderer,
    ) -> None:
        super().__init__(headers=HEADERS)
        del self.headers["content-length"]
        self.streams = streams
        self.first = first
        self.rest = rest
        self.renderer = renderer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await run_while_connected(receive, self._write(send))
        finally:
            await close_all(self.streams)

    async def _write(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        try:
            await self._write_events(send)
        except Exception as error:  # noqa: BLE001  # an edge: logged, told, and over
            # The status has been sent, so the error is the last event, and [DONE] never comes.
            log = logger.info if isinstance(error, ServiceError) else logger.exception
            log("stream_failed", extra={"code": getattr(error, "code", None)})
            await _send_event(send, b"data: " + failure_bytes(error) + b"\n\n")
        await send({"type": "http.response.body", "body": b""})

    async def _write_events(self, send: Send) -> None:
        for event in self.renderer.begin(self.streams):
            await _send_event(send, event)
        async with aclosing(self.rest):
            numbered = self.first
            while numbered is not None:
                number, delta = numbered
                for event in self.renderer.render(delta, number):
                    await _send_event(send, event)
                numbered = await anext(self.rest, None)
        for event in self.renderer.end(self.streams):
            await _send_event(send, event)


async def _send_event(send: Send, event: bytes) -> None:
    await send({"type": "http.response.body", "body": event, "more_body": True})


async def start_stream(
    service: CompletionService, requests: Sequence[CompletionRequest], renderer: Renderer
) -> EventStream:
    """Answers once the first delta is there: until then an error still has its own status."""
    streams: list[CompletionStream] = []
    try:
        for request in requests:
            streams += [await service.start(request)]
        deltas = merge(streams)
        first = await anext(deltas, None)
    except BaseException:
        await close_all(streams)
        raise
    return EventStream(streams, first, deltas, renderer)


async def merge(streams: Sequence[CompletionStream]) -> AsyncGenerator[NumberedDelta, None]:
    """The deltas of all streams as they come; the first error ends them."""
    if len(streams) == 1:
        async for delta in streams[0]:
            yield 0, delta
        return
    queue: Arrivals = asyncio.Queue()
    pumps = [
        asyncio.create_task(_pump(stream, number, queue)) for number, stream in enumerate(streams)
    ]
    try:
        num_open = len(pumps)
        while num_open:
            number, item = await queue.get()
            if isinstance(item, Exception):
                raise item
            if item is None:
                num_open -= 1
            else:
                yield number, item
    finally:
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)


async def _pump(stream: CompletionStream, number: int, queue: Arrivals) -> None:
    """Reads on whoever waits, so that a stop string ends its sequence at once."""
    try:
        async for delta in stream:
            queue.put_nowait((number, delta))
    except Exception as error:  # noqa: BLE001  # raised again by the reader
        queue.put_nowait((number, error))
    else:
        queue.put_nowait((number, None))


async def close_all(streams: Sequence[CompletionStream]) -> None:
    for stream in streams:
        await stream.aclose()
