"""Carries the events of one sequence from the engine thread to its reader."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from appliance.engine.sequence import FinishReason, TokenEvent


class SequenceStream:
    """The events of one sequence, for one reader on the event loop that submitted it.

    The reader iterates, or follows. It ends after the final event. Leaving early does not cancel.
    """

    __slots__ = ("_cancel", "_events", "_take", "_waiter", "finished", "loop", "sequence_id")

    def __init__(
        self,
        sequence_id: int,
        loop: asyncio.AbstractEventLoop,
        cancel: Callable[[int, FinishReason], None],
    ) -> None:
        self.sequence_id = sequence_id
        self.loop = loop
        self.finished: asyncio.Future[None] = loop.create_future()  # the final event has arrived
        self._cancel = cancel
        self._events: deque[TokenEvent] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._take: Callable[[TokenEvent], None] | None = None

    def follow(self, take: Callable[[TokenEvent], None]) -> None:
        """Call `take`, which must not raise, with every event: with those that are here now, and
        with others as they reach the loop. Waking a task for each would cost more than the rest.
        """
        while self._events:
            take(self._events.popleft())
        if not self.finished.done():
            self._take = take

    def __aiter__(self) -> SequenceStream:
        return self

    async def __anext__(self) -> TokenEvent:
        while not self._events:
            if self.finished.done():
                raise StopAsyncIteration
            self._waiter = self.loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return self._events.popleft()

    def cancel(self, reason: FinishReason = FinishReason.CANCELLED) -> None:
        """Ask the engine to end the sequence; unless it is over, its final event has this reason.

        A reader that found the end itself, a stop string say, gives STOP.
        """
        self._cancel(self.sequence_id, reason)

    def push(self, event: TokenEvent) -> None:
        """Deliver an event to the reader; called on the loop."""
        take = self._take
        if event.finish_reason is not None:
            self.finished.set_result(None)
            self._take = None  # it holds the reader, and the reader holds us
        if take is not None:
            take(event)
            return
        self._events.append(event)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def push_all(pairs: list[tuple[SequenceStream, TokenEvent]]) -> None:
    """Deliver events from any thread, with one call into each event loop."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[SequenceStream, TokenEvent]]] = {}
    for stream, event in pairs:
        by_loop.setdefault(stream.loop, []).append((stream, event))
    for loop, group in by_loop.items():  # tests have several
        try:
            loop.call_soon_threadsafe(_push_each, group)
        except RuntimeError:  # the loop is closed: no reader remains
            for stream, _ in group:
                stream.cancel()


def _push_each(pairs: list[tuple[SequenceStream, TokenEvent]]) -> None:
    for stream, event in pairs:
        stream.push(event)
