"""Chooses the sequences of the next forward pass: every decode, short prompts beside the oldest."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from itertools import chain

from appliance.engine.drafting import MAX_ROWS
from appliance.engine.fairness import Lines
from appliance.engine.kv_cache import BlockAllocator
from appliance.engine.pacing import Pace
from appliance.engine.sequence import Batch, Chunk, FinishReason, LogitRows, Sequence
from appliance.errors import ContextLengthExceeded, Overloaded


class Scheduler:
    """Owns every live sequence: waiting ones hold no blocks, running ones those of their tokens.

    Admission is fair between owners (see fairness), and first come, first served for each, as
    blocks and places allow: a large sequence whose turn it is waits for blocks and no other
    overtakes it. No more run than a batch has tokens, so every decode is in every batch.

    What decodes leave of a batch (but if there are any, no more than lets the answers flow on: see
    pacing) belongs to the first prompt, the oldest of the owner whose turn it is, and then to the
    others in that order, except for a lane of at most half: it goes to prompts with at most half as
    much left as the first, the shortest first. So a short prompt waits for shorter ones alone, and
    the first takes at most twice the batches it would as the only prompt. Each becomes the first.

    When a running sequence needs a block and none is free, the youngest of the owner served most
    gives up all of its own and goes back to the head of its owner's line, to compute its tokens
    again later: of one owner those that run are older than those that wait, always, and the oldest
    of the owner served least is never preempted, so each one's turn comes. The same way an owner
    who runs many gives places up to one who runs few: none is kept free for who might come.
    """

    def __init__(  # noqa: PLR0913 - called once, by name
        self,
        allocator: BlockAllocator,
        *,
        max_batch_tokens: int,
        max_sequences: int,
        max_queued: int,
        queue_timeout_s: float,
        max_context_tokens: int | None = None,
        speculates: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.allocator = allocator
        self.max_batch_tokens = max_batch_tokens
        self.max_sequences = max_sequences
        self.max_queued = max_queued
        self.queue_timeout_s = queue_timeout_s
        self.speculates = speculates
        capacity = allocator.capacity_tokens
        self.max_context_tokens = min(max_context_tokens or capacity, capacity)
        self._clock = clock
        # Of one owner both are in order of arrival, and those that run came before those that wait.
        self._waiting: OrderedDict[int, Sequence] = OrderedDict()
        self._running: dict[int, Sequence] = {}
        self._lines = Lines()
        self._displaced: list[Sequence] = []
        self._num_reused_tokens = 0  # since the last batch
        self._pace = Pace()

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    @property
    def num_running(self) -> int:
        return len(self._running)

    @property
    def has_work(self) -> bool:
        return bool(self._running or self._waiting)

    @property
    def sequences(self) -> Iterable[Sequence]:
        """List every live sequence, running ones first."""
        return chain(self._running.values(), self._waiting.values())

    def submit(self, sequence: Sequence) -> None:
        """Queue a sequence; raises when it could never run and when the queue is full.

        Full means that `max_sequences` and `max_queued` are here together: free places count. It is
        not full for an owner as long as another has more waiting: then the last of these goes.
        """
        self._check_fits(sequence)
        limit = self.max_sequences + self.max_queued
        if len(self._running) + len(self._waiting) >= limit:
            displaced = self._lines.displaced_by(sequence)
            if displaced is None:
                raise Overloaded(
                    f"The server is busy with {limit} completions, the most it takes. Try again "
                    "soon."
                )
            self._drop_waiting(displaced)
            self._displaced.append(displaced)
        sequence.arrived_at_s = self._clock()
        self._waiting[sequence.sequence_id] = sequence
        self._lines.add(sequence, self._running.values())

    def cancel(self, sequence_id: int) -> bool:
        """Drop a sequence at any stage and free its blocks; return False when it has ended."""
        sequence = self._running.pop(sequence_id, None) or self._waiting.pop(sequence_id, None)
        if sequence is None:
            return False
        self._lines.remove(sequence)
        self.allocator.free(sequence)
        return True

    def expire(self) -> list[Sequence]:
        """Drop sequences that waited too long to start; called after `schedule` admitted some.

        Preempted ones stay: they have begun, and their tokens may have been read.
        """
        deadline = self._clock() - self.queue_timeout_s
        expired = []
        for sequence in self._waiting.values():
            if sequence.has_started:
                continue
            if sequence.arrived_at_s <= deadline:
                expired.append(sequence)
            elif not self._lines.are_several:  # else one that gave its place up may be in front
                break
        for sequence in expired:
            self._drop_waiting(sequence)
        return expired

    def take_displaced(self) -> list[Sequence]:
        """Return those that were pushed out of the queue since this was last asked."""
        displaced, self._displaced = self._displaced, []
        return displaced

    def schedule(self) -> Batch | None:
        """Choose the next forward pass; return None when there is nothing to compute."""
        if self._lines.are_several:
            self._lines.survey(self._running.values())
        preempted = self._grow()
        preempted += self._admit()
        decodes = [s for s in self._running.values() if s.num_missing_tokens == 1]
        prompts = [s for s in self._running.values() if s.num_missing_tokens > 1]
        if self._lines.are_several:
            prompts.sort(key=self._lines.rank)
        # Guesses pay while a pass of few rows costs about as much as one of a single row.
        num_rows = min(MAX_ROWS, self.max_batch_tokens) if self.speculates and not prompts else 0
        chunks = [self._decode_chunk(s, num_rows // len(decodes) - 1) for s in decodes]
        budget = self.max_batch_tokens - len(chunks)
        if decodes:
            num_missing = sum(s.num_missing_tokens for s in prompts)
            budget = min(budget, self._pace.num_prompt_tokens(len(decodes), num_missing))
        hurried, num_hurried = pick_hurried(prompts, budget // 2)
        budget -= num_hurried
        for sequence in (s for s in prompts if s not in hurried):
            if not budget:
                break
            chunks.append(self._take_chunk(sequence, budget))
            budget -= chunks[-1].length
        for sequence in hurried:
            chunks.append(self._take_chunk(sequence, num_hurried))
            num_hurried -= chunks[-1].length
        if not chunks:
            return None
        num_reused, self._num_reused_tokens = self._num_reused_tokens, 0
        return Batch(tuple(chunks), tuple(mark_started(chunks)), tuple(preempted), num_reused)

    def learn(self, batch: Batch, duration_s: float) -> None:
        """Record the batch's duration."""
        lengths = [c.length for c in batch.chunks if c.length == 1 + len(c.draft)]  # of answers
        self._pace.learn(len(lengths), batch.num_tokens - sum(lengths), duration_s)

    def retract(self, batch: Batch) -> None:
        """Withdraw the blocks that a batch published, as it was not computed."""
        for chunk in batch.chunks:
            self.allocator.retract(chunk.sequence, chunk.start)

    def commit(self, chunk: Chunk, token_id: int | None) -> FinishReason | None:
        """Record a computed chunk and the token chosen after it; free the sequence if it ends.

        Called once more for each right guess of a chunk with a draft. Skips a chunk whose sequence
        was dropped after it was scheduled.
        """
        sequence = chunk.sequence
        if sequence.sequence_id not in self._running:
            return None
        sequence.num_cached_tokens = min(chunk.start + chunk.length, len(sequence.token_ids))
        self.allocator.publish(sequence, chunk.start, sequence.num_cached_tokens)
        if not sequence.num_new_tokens:
            sequence.num_computed_tokens += chunk.length - len(chunk.draft)
        if token_id is not None:
            sequence.token_ids.append(token_id)
        reason = finish_reason(sequence, token_id)
        if reason is not None:
            del self._running[sequence.sequence_id]
            self._lines.remove(sequence)
            self.allocator.free(sequence)
        return reason

    def _take_chunk(self, sequence: Sequence, max_length: int) -> Chunk:
        """Make a chunk of the next tokens of a prompt, after those that are known by now.

        The blocks they fill are known at once, to later chunks of this very batch, too: all of a
        layer's keys and values are written before any is read, unless the batch is of single
        tokens.
        """
        start = sequence.num_cached_tokens
        self.allocator.adopt(sequence)
        self._note_reuse(sequence, start)
        chunk = make_chunk(sequence, max_length)
        if chunk.length > 1:
            self.allocator.publish(sequence, chunk.start, chunk.start + chunk.length)
        return chunk

    def _decode_chunk(self, sequence: Sequence, max_draft: int) -> Chunk:
        """Make a chunk of the one token to compute and guesses of what follows."""
        num_tokens = len(sequence.token_ids)
        max_draft = min(max_draft, sequence.params.max_new_tokens - sequence.num_new_tokens - 1)
        if max_draft < 1 or sequence.is_pooled:
            return make_chunk(sequence, 1)
        draft = sequence.drafter.draft(sequence.token_ids, max_draft)
        num_wanted, num_spare = num_tokens + len(draft), len(self._running)
        if not draft or not self.allocator.allocate(
            sequence, num_tokens=num_wanted, num_spare=num_spare
        ):
            return make_chunk(sequence, 1)
        return Chunk(sequence, num_tokens - 1, 1 + len(draft), LogitRows.ALL, draft)

    def _grow(self) -> list[Sequence]:
        """Give running sequences, oldest first, the blocks they lack; return the preempted."""
        preempted: list[Sequence] = []
        for sequence in list(self._running.values()):
            while sequence.sequence_id in self._running and not self.allocator.allocate(sequence):
                if self._lines.are_several:
                    youngest = self._lines.last(self._running)
                else:
                    youngest = next(reversed(self._running.values()))
                self._preempt(youngest)
                preempted.append(youngest)
        return preempted

    def _preempt(self, sequence: Sequence) -> None:
        """Make a running sequence wait, at the head of its owner's line, without blocks."""
        del self._running[sequence.sequence_id]
        self._lines.put_back(sequence)
        self.allocator.free(sequence)
        sequence.num_cached_tokens = 0
        sequence.hidden_sum = None
        self._waiting[sequence.sequence_id] = sequence
        self._waiting.move_to_end(sequence.sequence_id, last=False)

    def _admit(self) -> list[Sequence]:
        """Start waiting sequences one by one while blocks and places are left.

        Where none is left, another owner may have to give one up; returns the preempted.
        """
        preempted: list[Sequence] = []
        are_several = self._lines.are_several
        while self._waiting:
            sequence = self._lines.first() if are_several else next(iter(self._waiting.values()))
            if self._start(sequence):
                continue
            giver = self._lines.giver(sequence, self._running) if are_several else None
            if giver is None:
                break
            self._preempt(giver)
            preempted.append(giver)
        return preempted

    def _start(self, sequence: Sequence) -> bool:
        """Give a waiting sequence a place and blocks; False if there are none.

        A block for each that runs stays free: one that is admitted is not preempted at once.
        """
        num_running = len(self._running)
        if num_running >= min(self.max_sequences, self.max_batch_tokens):
            return False
        if not self.allocator.allocate(sequence, num_spare=num_running):
            return False
        self._note_reuse(sequence, 0)
        self._running[sequence.sequence_id] = self._waiting.pop(sequence.sequence_id)
        self._lines.start(sequence)
        return True

    def _note_reuse(self, sequence: Sequence, start: int) -> None:
        """Count tokens from `start` on as found in the cache; their owner is not charged."""
        end = sequence.num_cached_tokens
        self._num_reused_tokens += end - start
        sequence.num_charged_tokens = max(sequence.num_charged_tokens, end)

    def _drop_waiting(self, sequence: Sequence) -> None:
        del self._waiting[sequence.sequence_id]
        self._lines.remove(sequence)

    def _check_fits(self, sequence: Sequence) -> None:
        if sequence.max_tokens > self.max_context_tokens:
            num_prompt_tokens = sequence.num_prompt_tokens
            raise ContextLengthExceeded.of(
                num_prompt_tokens,
                self.max_context_tokens,
                num_new_tokens=sequence.max_tokens - num_prompt_tokens,
            )


def pick_hurried(prompts: list[Sequence], lane: int) -> tuple[list[Sequence], int]:
    """Select short prompts to run ahead of the first, within `lane` tokens, and their share."""
    if len(prompts) < 2:
        return [], 0
    limit = prompts[0].num_missing_tokens // 2
    short = [s for s in prompts[1:] if s.num_missing_tokens <= limit]
    hurried: list[Sequence] = []
    room = lane
    for sequence in sorted(short, key=lambda s: s.num_missing_tokens):
        if not room:
            break
        hurried.append(sequence)
        room -= min(sequence.num_missing_tokens, room)
    return hurried, lane - room


def mark_started(chunks: Iterable[Chunk]) -> Iterator[Sequence]:
    """Mark sequences that are computed for the first time, and return them."""
    for chunk in chunks:
        if not chunk.sequence.has_started:
            chunk.sequence.has_started = True
            yield chunk.sequence


def make_chunk(sequence: Sequence, max_length: int) -> Chunk:
    """Make a chunk of a sequence's next tokens to compute, at most `max_length`."""
    start = sequence.num_cached_tokens
    length = min(max_length, len(sequence.token_ids) - start)
    return Chunk(sequence, start, length, rows_needed(sequence, start, start + length))


def rows_needed(sequence: Sequence, start: int, end: int) -> LogitRows:
    """Return which rows of the chunk are read: all for prompt logprobs, else at most one."""
    params = sequence.params
    if sequence.is_pooled:
        return LogitRows.NONE
    if params.num_prompt_logprobs is not None:
        first = max(start, len(sequence.prompt_logprobs) - 1)  # a preempted one has some already
        if first < min(end, len(sequence.prompt_ids) - 1):
            return LogitRows.ALL
    if end == len(sequence.token_ids) and params.max_new_tokens > 0:
        return LogitRows.LAST
    return LogitRows.NONE


def finish_reason(sequence: Sequence, token_id: int | None) -> FinishReason | None:
    """Return why a sequence ends with its latest token (None: none was sampled), or None."""
    params = sequence.params
    if token_id is None:
        if sequence.num_cached_tokens < len(sequence.token_ids):
            return None
        return FinishReason.STOP if sequence.is_pooled else FinishReason.LENGTH
    if token_id in params.stop_token_ids:
        return FinishReason.STOP
    if sequence.constraint is not None and sequence.constraint.is_complete:
        return FinishReason.STOP
    return FinishReason.LENGTH if sequence.num_new_tokens >= params.max_new_tokens else None
