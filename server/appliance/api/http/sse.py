"""Server-sent events: writes a completion as it grows, for as long as someone reads.

A slow client slows only itself: while its socket takes no more, its answer waits here, which is no
more than its own number of tokens; where many wait, they are written as few.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Protocol, cast

from appliance.api.http.gate import DIRECT_BODY, DirectBody
from appliance.api.http.response import Response
from appliance.completion import CompletionRequest, Completions, Delta, Stream
from appliance.errors import ServiceError

if TYPE_CHECKING:
    from appliance.api.http.asgi import Receive, Scope, Send

logger = logging.getLogger(__name__)

DONE = b"data: [DONE]\n\n"
PING = b": ping\n\n"  # a comment, which clients skip
MANY_WAITING = 16  # deltas: as many mean that the client is slower than the model
MOST_AT_ONCE = 256  # deltas in one piece: a long answer that waited holds up no other
NumberedDelta = tuple[int, Delta]  # the number is that of its stream

HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


class Renderer(Protocol):
    """How one face of the API writes a stream: each time whole events, or nothing."""

    def begin(self, streams: Sequence[Stream]) -> bytes:
        """What comes before the first delta."""

    def render(self, delta: Delta, stream_number: int) -> bytes: ...

    def end(self, streams: Sequence[Stream]) -> bytes:
        """What comes after the last delta, `[DONE]` included."""


class EventStream(Response):
    """Writes one or more completions, and closes them at the end, also after an error.

    A delta is written where it arrives, in the engine's call into the loop, if the socket takes it;
    else it waits for the task that answers the request.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        streams: Sequence[Stream],
        renderer: Renderer,
        error_bytes: Callable[[Exception], bytes],
        ping_interval_s: float | None = None,
    ) -> None:
        super().__init__(headers=HEADERS)
        self._streams = streams
        self._renderer = renderer
        self._error_bytes = error_bytes
        self._ping_interval_s = ping_interval_s
        self._direct: DirectBody | None = None  # there is one while the task has nothing to write
        self._waiting: list[NumberedDelta] = []
        self._wakeup = asyncio.Event()  # something waits, or there was an end
        self._clock = asyncio.get_running_loop().time
        self._spoke_at_s = 0.0  # while the task waits
        self._error: BaseException | None = None  # the first of all streams
        self._num_open = len(streams)
        for number, stream in enumerate(streams):
            stream.follow(partial(self._take, number)).add_done_callback(self._note_end)

    async def __call__(self, scope: Scope, _: Receive, send: Send) -> None:
        direct = (scope.get("extensions") or {}).get(DIRECT_BODY)
        try:
            await self._write(send, cast("DirectBody | None", direct))
        finally:
            close_all(self._streams)

    async def wait_for_first(self) -> None:
        """Until there is a delta, or, if there is none, raise the error that came in its place.

        Gives up when it is time to say that we are still here, which takes the status away.
        """
        try:
            async with asyncio.timeout(self._ping_interval_s):
                await self._wakeup.wait()
        except TimeoutError:
            return
        if self._error is not None and not self._waiting:
            raise self._error

    def _take(self, number: int, delta: Delta) -> None:
        direct = self._direct
        if direct is None or self._waiting or not direct.is_open:
            self._waiting.append((number, delta))
            self._wakeup.set()
        elif piece := self._renderer.render(delta, number):
            self._spoke_at_s = self._clock()
            direct.write(piece)

    def _note_end(self, end: asyncio.Future[None]) -> None:
        self._num_open -= 1
        if not end.cancelled():
            self._error = self._error or end.exception()
        self._wakeup.set()

    async def _write(self, send: Send, direct: DirectBody | None) -> None:
        headers = [*self.raw_headers]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        try:
            last = await self._write_events(send, direct)
        except Exception as error:  # noqa: BLE001  # an edge: logged, and sent to the client
            # The status has been sent, so the error is the last event, and [DONE] never comes.
            log = logger.info if isinstance(error, ServiceError) else logger.exception
            log("stream_failed", extra={"code": getattr(error, "code", None)})
            last = b"data: " + self._error_bytes(error) + b"\n\n"
        await send({"type": "http.response.body", "body": last})

    async def _write_events(self, send: Send, direct: DirectBody | None) -> bytes:
        """Returns what is to be written last, so that it goes out with the end of the body."""
        renderer = self._renderer
        await _send(send, renderer.begin(self._streams))
        while True:
            while self._waiting:
                waiting = self._waiting[:MOST_AT_ONCE]
                del self._waiting[:MOST_AT_ONCE]
                for number, delta in waiting if len(waiting) < MANY_WAITING else merge(waiting):
                    await _send(send, renderer.render(delta, number))
            if self._error is not None:
                raise self._error
            if not self._num_open:
                return renderer.end(self._streams)
            self._wakeup.clear()
            self._direct = direct
            await self._wait(send)
            self._direct = None

    async def _wait(self, send: Send) -> None:
        """Until the task has something to do; a proxy cuts connections on which nothing moves."""
        interval_s = self._ping_interval_s
        self._spoke_at_s = self._clock()
        while not self._wakeup.is_set():
            spoke_at_s = self._spoke_at_s
            try:
                async with asyncio.timeout_at(
                    None if interval_s is None else spoke_at_s + interval_s
                ):
                    await self._wakeup.wait()
            except TimeoutError:
                if self._spoke_at_s == spoke_at_s:
                    await _send(send, PING)
                    self._spoke_at_s = self._clock()


async def _send(send: Send, piece: bytes) -> None:
    if piece:
        await send({"type": "http.response.body", "body": piece, "more_body": True})


async def start_stream(
    service: Completions,
    requests: Sequence[CompletionRequest],
    renderer: Renderer,
    error_bytes: Callable[[Exception], bytes],
    ping_interval_s: float | None = None,
) -> EventStream:
    """Answers once the first delta is there: until then an error still has its own status."""
    streams: list[Stream] = []
    try:
        for request in requests:
            streams += [await service.start(request)]
        events = EventStream(streams, renderer, error_bytes, ping_interval_s)
        await events.wait_for_first()
    except BaseException:
        close_all(streams)
        raise
    return events


def merge(waiting: Iterable[NumberedDelta]) -> Iterable[NumberedDelta]:
    """One delta for all of a choice."""
    merged: dict[tuple[int, int], Delta] = {}
    for number, delta in waiting:
        key = number, delta.index
        merged[key] = merged[key] + delta if key in merged else delta
    return [(number, delta) for (number, _), delta in merged.items()]


def close_all(streams: Sequence[Stream]) -> None:
    for stream in streams:
        stream.close()
