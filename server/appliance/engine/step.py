"""Takes one batch from forward pass to events: compute, choose tokens, commit, report."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from appliance.engine.sampler import choose, gather
from appliance.engine.sequence import FinishReason, TokenEvent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from appliance.engine.observer import EngineObserver
    from appliance.engine.runner import Runner
    from appliance.engine.scheduler import Scheduler
    from appliance.engine.sequence import Batch, Chunk, ChunkOutput, Sequence

logger = logging.getLogger(__name__)


class Stepper:
    """Computes batches; a failure ends the sequences it concerns and no other."""

    def __init__(
        self,
        runner: Runner,
        scheduler: Scheduler,
        observer: EngineObserver | None,
        clock: Callable[[], float],
    ) -> None:
        self.num_failed = 0  # in a row
        self._runner = runner
        self._scheduler = scheduler
        self._observer = observer
        self._clock = clock
        self._intervals_s: list[float] = []  # between tokens of one sequence, of this batch

    def run(self, batch: Batch) -> list[TokenEvent]:
        """Run a batch and return its events in order; a sequence that ends has its final event."""
        self._begin(batch)
        try:
            outputs = self._runner.forward(batch)
        except Exception:
            sequences = [chunk.sequence for chunk in batch.chunks]
            logger.exception("a forward pass failed", extra=log_fields(sequences))
            self.num_failed += 1
            self._scheduler.retract(batch)
            return [self._fail(sequence.sequence_id) for sequence in sequences]
        self.num_failed = 0
        events: list[TokenEvent] = []
        for chunk, output in zip(batch.chunks, outputs, strict=True):
            try:
                self._finish(chunk, output, events)
            except Exception:
                logger.exception("no token can be chosen", extra=log_fields([chunk.sequence]))
                events.append(self._fail(chunk.sequence.sequence_id))
        if self._intervals_s and self._observer is not None:
            self._observer.on_next_tokens(self._intervals_s)
        self._intervals_s = []
        return events

    def end(self, sequence_id: int, reason: FinishReason) -> TokenEvent:
        """Return the final event of a sequence that the scheduler has dropped."""
        self._runner.release(sequence_id)
        return TokenEvent(sequence_id, finish_reason=reason)

    def _begin(self, batch: Batch) -> None:
        """Have the runner forget preempted sequences; report them and the new ones."""
        for sequence in batch.preempted:
            self._runner.release(sequence.sequence_id)
        if self._observer is None:
            return
        for sequence in batch.started:
            self._observer.on_start(sequence.num_prompt_tokens)
        for _ in batch.preempted:
            self._observer.on_preempt()
        if batch.num_reused_tokens:
            self._observer.on_reuse(batch.num_reused_tokens)

    def _finish(self, chunk: Chunk, output: ChunkOutput, events: list[TokenEvent]) -> None:
        """Choose the tokens after a chunk: one, and another while they are those that were guessed.

        A row's logits follow from the sequence up to the row's token; so a guess only decides
        whether that row exists, and every token is chosen as it would be without guesses.
        """
        sequence = chunk.sequence
        gather(chunk, output, self._runner.weigh)
        if output.logits is None or not chunk.is_sampled:
            reason = self._scheduler.commit(chunk, None)
            if reason is not None:
                self._runner.release(sequence.sequence_id)
                events.append(sequence.make_event(None, None, reason))
            return
        num_events = len(events)
        now = self._clock()
        rows = output.logits[-1 - len(chunk.draft) :]
        for logits, guess in zip(rows, (*chunk.draft, None), strict=True):
            token_id, logprobs = choose(logits, sequence, self._runner.weigh)
            reason = self._scheduler.commit(chunk, token_id)
            self._report_token(sequence, now)
            if reason is not None:
                self._runner.release(sequence.sequence_id)
            events.append(sequence.make_event(token_id, logprobs, reason))
            if reason is not None or token_id != guess:
                break
        if chunk.draft:
            self._report_draft(chunk, len(events) - num_events - 1)

    def _report_token(self, sequence: Sequence, now: float) -> None:
        last_at, sequence.last_token_at_s = sequence.last_token_at_s, now
        if last_at is not None:
            self._intervals_s.append(now - last_at)
        elif self._observer is not None:
            self._observer.on_first_token(now - sequence.arrived_at_s)

    def _report_draft(self, chunk: Chunk, num_accepted: int) -> None:
        sequence, num_drafted = chunk.sequence, len(chunk.draft)
        sequence.drafter.learn(num_drafted, num_accepted, len(sequence.token_ids))
        if self._observer is not None:
            self._observer.on_draft(num_drafted, num_accepted)

    def _fail(self, sequence_id: int) -> TokenEvent:
        self._scheduler.cancel(sequence_id)
        return self.end(sequence_id, FinishReason.FAILED)


def log_fields(sequences: Iterable[Sequence]) -> dict[str, list[int] | list[str]]:
    """Return log fields that name the sequences; the choices of one request share its id."""
    sequences = list(sequences)
    request_ids = [s.request_id for s in sequences if s.request_id is not None]
    return {
        "sequence_ids": [sequence.sequence_id for sequence in sequences],
        "request_ids": list(dict.fromkeys(request_ids)),
    }
