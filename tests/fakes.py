"""Stand-ins handed to the engine: a clock, a runner that checks paging, an observer, a grammar."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from appliance.engine.runner import RunnerInfo
from appliance.engine.sampler import relative_probabilities
from appliance.engine.sequence import (
    Batch,
    Chunk,
    ChunkOutput,
    DoubleArray,
    FinishReason,
    FloatArray,
    LogitRows,
)

NUM_PREFIX_CLASSES = 509  # prefixes that fall into one class get the same logits
EMPTY_SLOT = -1


@dataclass
class FakeClock:
    """A clock that stands still until a test moves it."""

    now_s: float = 0.0

    def __call__(self) -> float:
        return self.now_s

    def advance(self, seconds: float) -> None:
        self.now_s += seconds


class FakeRunner:
    """A model whose logits depend on the tokens before them and on nothing else.

    It keeps the token ids themselves where a real runner keeps keys and values, reads every prefix
    back through the block table, and notes a fault wherever that is not what the sequence holds,
    and wherever a chunk does not go on where its sequence was, or where blocks that others computed
    end, or begin anew after a release.

    With `memory` only so many of the tokens before count, so that it repeats itself. With `script`,
    greedy decoding says the script, token by token, then its last token for ever.
    """

    def __init__(
        self,
        *,
        vocab_size: int = 64,
        block_size: int = 4,
        num_blocks: int = 64,
        max_context_tokens: int = 128,
        script: Iterable[int] = (),
        has_fixed_arithmetic: bool = True,
        memory: int | None = None,
    ) -> None:
        self.info = RunnerInfo(
            name="fake",
            vocab_size=vocab_size,
            max_context_tokens=max_context_tokens,
            block_size=block_size,
            num_blocks=num_blocks,
            num_parameters=0,
            weight_bytes=0,
            device="cpu",
            dtype="float32",
            num_threads=1,
            has_fixed_arithmetic=has_fixed_arithmetic,
        )
        self.script = tuple(script)
        self.faults: list[str] = []
        self.batches: list[list[tuple[int, int, int]]] = []  # (sequence id, start, length) a chunk
        self.released: list[int] = []
        self.num_failures_left = 0  # so many of the next forward passes raise
        self.nan_sequence_ids: set[int] = set()
        self.memory = memory
        self._computed: dict[int, range] = {}  # by sequence id: where it may go on, until released
        generator = np.random.default_rng(0)
        self._logits = generator.normal(0, 2, (NUM_PREFIX_CLASSES, vocab_size)).astype(np.float32)
        self._hidden = generator.normal(0, 1, (NUM_PREFIX_CLASSES, 8)).astype(np.float32)
        self._slots = np.full((num_blocks, block_size), EMPTY_SLOT, dtype=np.int64)

    def forward(self, batch: Batch) -> list[ChunkOutput]:
        self.batches.append([(c.sequence.sequence_id, c.start, c.length) for c in batch.chunks])
        if self.num_failures_left:
            self.num_failures_left -= 1
            raise RuntimeError("the fake runner was told to fail")
        if all(chunk.length == 1 for chunk in batch.chunks):  # as in the native kernels
            return [self._compute(chunk) for chunk in batch.chunks if self._write(chunk)]
        for chunk in batch.chunks:  # all writes before all reads: a block that two write shows
            self._write(chunk)
        return [self._compute(chunk) for chunk in batch.chunks]

    def weigh(self, logits: FloatArray, peak: float, temperature: float) -> DoubleArray:
        return relative_probabilities(logits, peak, temperature)

    def release(self, sequence_id: int) -> None:
        self.released.append(sequence_id)
        self._computed.pop(sequence_id, None)

    def logits_after(self, token_ids: Iterable[int]) -> FloatArray:
        """The logits [V] this model gives after a prefix: what a test compares with."""
        logits: FloatArray = self._logits[self._class(np.array(list(token_ids), dtype=np.int64))]
        return logits

    def embedding_of(self, token_ids: Iterable[int]) -> FloatArray:
        """The embedding [H] this model gives a whole prompt."""
        ids = np.array(list(token_ids), dtype=np.int64)
        return (self._hidden_sum(ids, 0) / len(ids)).astype(np.float32)

    def _write(self, chunk: Chunk) -> bool:
        block_size, sequence_id = self.info.block_size, chunk.sequence.sequence_id
        expected = self._computed.get(sequence_id, range(1))  # several where guesses were computed
        is_shared = chunk.start >= expected.stop and chunk.start % block_size == 0
        if chunk.start not in expected and not (is_shared and self.info.has_fixed_arithmetic):
            self.faults.append(f"sequence {sequence_id} is not computed in order")
        end = chunk.start + chunk.length
        self._computed[sequence_id] = range(end - len(chunk.draft), end + 1)
        for position, token_id in enumerate(chunk.token_ids, start=chunk.start):
            block = chunk.sequence.block_table[position // block_size]
            self._slots[block, position % block_size] = token_id
        return True

    def _compute(self, chunk: Chunk) -> ChunkOutput:
        sequence, end = chunk.sequence, chunk.start + chunk.length
        prefix = self._slots[sequence.block_table].reshape(-1)[:end]
        if prefix.tolist() != [*sequence.token_ids, *chunk.draft][:end]:
            self.faults.append(f"sequence {sequence.sequence_id} reads tokens that are not its own")
        hidden_sum = self._hidden_sum(prefix, chunk.start) if sequence.is_pooled else None
        return ChunkOutput(logits=self._rows(chunk, prefix), hidden_sum=hidden_sum)

    def _rows(self, chunk: Chunk, prefix: NDArray[np.int64]) -> FloatArray | None:
        if chunk.rows is LogitRows.NONE:
            return None
        first = chunk.start if chunk.rows is LogitRows.ALL else len(prefix) - 1
        classes = [self._class(prefix[: position + 1]) for position in range(first, len(prefix))]
        logits = self._logits[classes]
        if self.script and chunk.is_sampled:
            for row in range(1 + len(chunk.draft)):
                index = min(chunk.sequence.num_new_tokens + row, len(self.script) - 1)
                at = row - 1 - len(chunk.draft)
                logits[at, self.script[index]] = logits[at].max() + 20
        if chunk.sequence.sequence_id in self.nan_sequence_ids:
            logits[-1, 0] = np.nan
        return logits

    def _hidden_sum(self, prefix: NDArray[np.int64], start: int) -> DoubleArray:
        classes = [self._class(prefix[: position + 1]) for position in range(start, len(prefix))]
        hidden_sum: DoubleArray = self._hidden[classes].sum(axis=0, dtype=np.float64)
        return hidden_sum

    def _class(self, prefix: NDArray[np.int64]) -> int:
        seen = prefix if self.memory is None else prefix[-self.memory :]
        return zlib.crc32(seen.tobytes()) % NUM_PREFIX_CLASSES


@dataclass
class FakeObserver:
    """Takes down what the engine reports."""

    prompts: list[int] = field(default_factory=list)  # their lengths, as they start
    steps: list[tuple[int, float]] = field(default_factory=list)
    first_delays_s: list[float] = field(default_factory=list)
    intervals_s: list[float] = field(default_factory=list)
    num_preemptions: int = 0
    num_reused_tokens: int = 0
    num_drafted: int = 0
    num_accepted: int = 0
    ends: list[FinishReason] = field(default_factory=list)

    def on_start(self, num_prompt_tokens: int, /) -> None:
        self.prompts.append(num_prompt_tokens)

    def on_reuse(self, num_tokens: int, /) -> None:
        self.num_reused_tokens += num_tokens

    def on_step(self, num_tokens: int, duration_s: float, /) -> None:
        self.steps.append((num_tokens, duration_s))

    def on_draft(self, num_drafted: int, num_accepted: int, /) -> None:
        self.num_drafted += num_drafted
        self.num_accepted += num_accepted

    def on_first_token(self, delay_s: float, /) -> None:
        self.first_delays_s.append(delay_s)

    def on_next_tokens(self, intervals_s: Sequence[float], /) -> None:
        self.intervals_s.extend(intervals_s)

    def on_preempt(self) -> None:
        self.num_preemptions += 1

    def on_end(self, reason: FinishReason, /) -> None:
        self.ends.append(reason)


class FakeConstraint:
    """A grammar that allows exactly one answer."""

    def __init__(self, answer: Iterable[int]) -> None:
        self.answer = tuple(answer)
        self.accepted: list[int] = []

    def apply(self, logits: FloatArray) -> None:
        allowed = self.answer[len(self.accepted)]
        logits[np.arange(len(logits)) != allowed] = -np.inf

    def accept(self, token_id: int) -> None:
        self.accepted.append(token_id)

    @property
    def is_complete(self) -> bool:
        return len(self.accepted) == len(self.answer)
