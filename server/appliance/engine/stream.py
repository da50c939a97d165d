"""The bridge from the engine thread to one reader: the events of one sequence as they come."""

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
        """Hand every event to `take`, which must not raise: those that are here now, others in the
        call that brings them to the loop. Waking a task for each would cost more than the rest.
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
        """Have the sequence end soon; its final event gives this reason if it was not over already.

        A reader that found the end itself, a stop string say, gives STOP.
        """
        self._cancel(self.sequence_id, reason)

    def push(self, event: TokenEvent) -> None:
        """Hand the reader an event; called on the loop."""
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
    """Hand events over from any thread, with one call into an event loop, not one for each."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[SequenceStream, TokenEvent]]] = {}
    for stream, event in pairs:
        by_loop.setdefault(stream.loop, []).append((stream, event))
    for loop, group in by_loop.items():  # tests have several
        try:
            loop.call_soon_threadsafe(_push_each, group)
        except RuntimeError:  # the loop is closed: nobody is left to read
            for stream, _ in group:
                stream.cancel()


def _push_each(pairs: list[tuple[SequenceStream, TokenEvent]]) -> None:
    for stream, event in pairs:
        stream.push(event)
