"""Runs the engine thread and its bridge to asyncio: submit, cancel, step, streams."""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
import time
from typing import TYPE_CHECKING

from appliance.engine.kv_cache import BlockAllocator
from appliance.engine.scheduler import Scheduler
from appliance.engine.sequence import (
    Constraint,
    FinishReason,
    SamplingParams,
    Sequence,
    TokenEvent,
)
from appliance.engine.step import Stepper, log_fields
from appliance.engine.stream import SequenceStream, push_all
from appliance.errors import InvalidRequest, NotReady

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from appliance.engine.observer import EngineObserver
    from appliance.engine.runner import Runner

logger = logging.getLogger(__name__)

MAX_FAILED_STEPS = 3  # in a row, until the engine calls itself failed
CANCEL_TIMEOUT_S = 5.0  # how long a drain waits for what it cancelled


class Engine:
    """Runs sequences in batches. One thread owns the runner and the sequences that run.

    `submit`, `cancel` and the properties are for the event loop; `step` is for the thread, or for a
    test that does not start it. The lock guards queue and cancellations, never a forward pass.
    """

    def __init__(  # noqa: PLR0913 - called once, by name
        self,
        runner: Runner,
        *,
        max_batch_tokens: int,
        max_sequences: int,
        max_queued: int,
        queue_timeout_s: float,
        shares_prefixes: bool = True,
        speculates: bool = True,
        observer: EngineObserver | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        info = runner.info
        self._allocator = BlockAllocator(
            num_blocks=info.num_blocks,
            block_size=info.block_size,
            shares_prefixes=shares_prefixes and info.has_fixed_arithmetic,
        )
        self._scheduler = Scheduler(
            self._allocator,
            max_batch_tokens=max_batch_tokens,
            max_sequences=max_sequences,
            max_queued=max_queued,
            queue_timeout_s=queue_timeout_s,
            max_context_tokens=info.max_context_tokens,
            speculates=speculates and info.has_fixed_arithmetic,
            clock=clock,
        )
        self._runner = runner
        self._observer = observer
        self._stepper = Stepper(runner, self._scheduler, observer, clock)
        self._clock = clock
        self._wakeup = threading.Condition()
        self._thread: threading.Thread | None = None
        self._is_accepting = True
        self._is_stopping = False
        self._sequence_ids = itertools.count(1)
        self._streams: dict[int, SequenceStream] = {}  # of the sequences without a final event
        self._cancelled_ids: dict[int, FinishReason] = {}  # and what they end in
        self._last_step_at = self._busy_since = clock()

    @property
    def max_context_tokens(self) -> int:
        """Return the most tokens of one sequence, prompt and new: what model and cache can hold."""
        return self._scheduler.max_context_tokens

    @property
    def num_running(self) -> int:
        return self._scheduler.num_running

    @property
    def num_waiting(self) -> int:
        return self._scheduler.num_waiting

    @property
    def num_used_blocks(self) -> int:
        return self._allocator.num_used_blocks

    @property
    def num_free_blocks(self) -> int:
        return self._allocator.num_free_blocks

    @property
    def has_failed(self) -> bool:
        """Return True while the latest steps all failed; one that succeeds clears it."""
        return self._stepper.num_failed >= MAX_FAILED_STEPS

    def is_stalled(self, after_s: float) -> bool:
        """Return True when there is work and no step has ended for `after_s` seconds."""
        progress_at = max(self._last_step_at, self._busy_since)
        return self._scheduler.has_work and self._clock() - progress_at >= after_s

    def submit(  # noqa: PLR0913 - called by name
        self,
        prompt_ids: Iterable[int],
        params: SamplingParams,
        constraint: Constraint | None = None,
        *,
        is_pooled: bool = False,
        request_id: str | None = None,
        cache_salt: bytes = b"",
        owner: str = "",
        priority: int = 0,
    ) -> SequenceStream:
        """Queue a sequence and return its events; raises InvalidRequest, Overloaded or NotReady.

        Owners share the engine evenly; a higher priority is served before a lower one.
        """
        sequence = Sequence(
            sequence_id=next(self._sequence_ids),
            prompt_ids=tuple(prompt_ids),
            params=params,
            constraint=constraint,
            is_pooled=is_pooled,
            request_id=request_id,
            cache_salt=cache_salt,
            owner=owner,
            priority=priority,
        )
        if not sequence.prompt_ids:
            raise InvalidRequest("The prompt is empty. Send at least one token.", field="prompt")
        vocab_size = self._runner.info.vocab_size
        check_token_ids(sequence.prompt_ids, vocab_size)
        check_token_ids(params.logit_bias, vocab_size, "logit_bias")
        stream = SequenceStream(sequence.sequence_id, asyncio.get_running_loop(), self.cancel)
        with self._wakeup:
            if not self._is_accepting:
                raise NotReady("The server is shutting down. Try again in a moment.")
            if not self._scheduler.has_work:
                self._busy_since = self._clock()
            self._scheduler.submit(sequence)
            self._streams[sequence.sequence_id] = stream
            self._wakeup.notify_all()
        return stream

    def cancel(self, sequence_id: int, reason: FinishReason = FinishReason.CANCELLED) -> None:
        """Make the next step drop a sequence, unless it has ended. For any thread.

        Of several reasons the first counts: a reader that found a stop string leaves next.
        """
        with self._wakeup:
            if sequence_id in self._streams:
                self._cancelled_ids.setdefault(sequence_id, reason)
                self._wakeup.notify_all()

    async def drain(self, timeout_s: float) -> None:
        """Accept no more, let what is here finish for `timeout_s` seconds, then cancel the rest."""
        with self._wakeup:
            self._is_accepting = False
            streams = list(self._streams.values())
        if not streams:
            return
        unfinished = {stream.finished for stream in streams}
        _, unfinished = await asyncio.wait(unfinished, timeout=timeout_s)
        for stream in streams:
            stream.cancel()
        if unfinished:
            await asyncio.wait(unfinished, timeout=CANCEL_TIMEOUT_S)

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float = 10.0) -> None:
        """End the thread after the step it is in; what is still here ends as cancelled."""
        with self._wakeup:
            self._is_accepting = False
            self._is_stopping = True
            self._wakeup.notify_all()
        if self._thread is None:
            self._end_all(FinishReason.CANCELLED)
            return
        self._thread.join(timeout_s)
        # Stuck in a forward pass, the thread keeps the sequences: at least end their streams.
        self._deliver(
            [TokenEvent(id_, finish_reason=FinishReason.CANCELLED) for id_ in list(self._streams)]
        )

    def step(self) -> list[TokenEvent]:
        """Run one forward pass; return the events it delivered."""
        started_at = self._clock()
        with self._wakeup:
            cancelled_ids, self._cancelled_ids = self._cancelled_ids, {}
            dropped = {
                sequence_id: reason
                for sequence_id, reason in cancelled_ids.items()
                if self._scheduler.cancel(sequence_id)
            }
            batch = self._scheduler.schedule()
            for sequence in self._scheduler.expire():
                dropped[sequence.sequence_id] = FinishReason.TIMED_OUT
            for sequence in self._scheduler.take_displaced():
                dropped[sequence.sequence_id] = FinishReason.DISPLACED
        events = [self._stepper.end(sequence_id, reason) for sequence_id, reason in dropped.items()]
        if batch is not None:
            events += self._stepper.run(batch)
        self._last_step_at = self._clock()
        if batch is not None and not self._stepper.num_failed:
            self._scheduler.learn(batch, self._last_step_at - started_at)
        if batch is not None and self._observer is not None:
            self._observer.on_step(batch.num_tokens, self._last_step_at - started_at)
        self._deliver(events)
        return events

    def _run(self) -> None:
        try:
            while self._wait_for_work():
                try:
                    self.step()
                except Exception:
                    with self._wakeup:
                        fields = log_fields(self._scheduler.sequences)
                    logger.exception("an engine step failed; every sequence ends", extra=fields)
                    self._stepper.num_failed += 1
                    self._end_all(FinishReason.FAILED)
        finally:
            self._is_accepting = False
            self._end_all(FinishReason.CANCELLED)

    def _wait_for_work(self) -> bool:
        """Sleep until there is something to do; return False when that is to stop."""
        with self._wakeup:
            while not (self._is_stopping or self._cancelled_ids or self._scheduler.has_work):
                self._wakeup.wait()
            return not self._is_stopping

    def _end_all(self, reason: FinishReason) -> None:
        with self._wakeup:
            for sequence in list(self._scheduler.sequences):
                self._scheduler.cancel(sequence.sequence_id)
            self._scheduler.take_displaced()  # their streams end below
            self._allocator.forget_all()  # a step that was cut short may have published too much
            sequence_ids = list(self._streams)
        self._deliver(
            [TokenEvent(sequence_id, finish_reason=reason) for sequence_id in sequence_ids]
        )
        for sequence_id in sequence_ids:
            self._runner.release(sequence_id)

    def _deliver(self, events: list[TokenEvent]) -> None:
        """Deliver events to their streams; ends are counted first, before a reader sees them."""
        pairs: list[tuple[SequenceStream, TokenEvent]] = []
        for event in events:
            take = self._streams.get if event.finish_reason is None else self._streams.pop
            if (stream := take(event.sequence_id, None)) is not None:
                pairs.append((stream, event))
        try:
            for _, event in pairs:
                if event.finish_reason is not None and self._observer is not None:
                    self._observer.on_end(event.finish_reason)
        finally:
            push_all(pairs)


def check_token_ids(token_ids: Collection[int], vocab_size: int, field: str = "prompt") -> None:
    """Refuse ids the model does not have: one would fail the forward pass of its whole batch."""
    if not token_ids:
        return
    where = "" if field == "prompt" else f" in `{field}`"
    for token_id in (min(token_ids), max(token_ids)):
        if not 0 <= token_id < vocab_size:
            raise InvalidRequest(
                f"Token id {token_id}{where} is not one of the model's,"
                f" which are 0 to {vocab_size - 1}.",
                field=field,
            )
