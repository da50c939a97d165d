"""Defines the engine's data: sampling parameters, sequences, batches and events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from appliance.engine.drafting import Drafter

FloatArray = NDArray[np.float32]
DoubleArray = NDArray[np.float64]


class FinishReason(StrEnum):
    """Why a sequence ended; every submitted sequence ends in exactly one of these."""

    STOP = "stop"  # a stop token, or a completed grammar
    LENGTH = "length"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"  # waited in the queue longer than allowed
    DISPLACED = "displaced"  # gave its place in a full queue up to an owner who has fewer
    FAILED = "failed"  # the forward pass raised; the server lives on


class Constraint(Protocol):
    """Limits which tokens may come next in one sequence. For the engine thread only."""

    def apply(self, logits: FloatArray) -> None:
        """Set the logits [V] of forbidden tokens to minus infinity, in place."""

    def accept(self, token_id: int) -> None:
        """Advance by the token that was sampled."""

    @property
    def is_complete(self) -> bool:
        """True when nothing but the end may follow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """Says how to choose tokens. `temperature` 0 is greedy; the seed makes answers repeatable."""

    max_new_tokens: int
    seed: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int | None = None
    min_p: float = 0.0
    repetition_penalty: float = 1.0  # over prompt and new tokens, as in transformers
    presence_penalty: float = 0.0  # over new tokens, as in the OpenAI API
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    stop_token_ids: frozenset[int] = frozenset()
    num_logprobs: int | None = None  # None: none; 0: the chosen token's; N: and the N best
    num_prompt_logprobs: int | None = None


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """The log-probability of a token and of its best alternatives, best first."""

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


class TokenEvent(NamedTuple):
    """Reports a step of one sequence. The last event of a sequence carries `finish_reason`.

    A stop token is reported like any other, with finish_reason STOP; completions leave
    it out of the text. A completed grammar also ends in STOP, but its last token is part of the
    answer: `stop_token_ids` tells the two apart.
    """

    sequence_id: int
    token_id: int | None = None
    logprobs: TokenLogprobs | None = None
    finish_reason: FinishReason | None = None
    # On the first event, when asked for; nothing precedes the first token, so it has None.
    prompt_logprobs: tuple[TokenLogprobs | None, ...] | None = None
    num_reused_tokens: int = 0  # on the first event: those of the prompt that were in the cache
    embedding: FloatArray | None = None  # [H], on the only event of a pooled sequence


@dataclass(slots=True, kw_only=True, eq=False)
class Sequence:
    """One completion as the engine sees it; owned by the engine thread once submitted."""

    sequence_id: int
    prompt_ids: tuple[int, ...]
    params: SamplingParams
    constraint: Constraint | None = None
    is_pooled: bool = False  # an embedding: prefill only, the mean of the final hidden states
    request_id: str | None = None  # of the HTTP request it answers; for the log
    cache_salt: bytes = b""  # blocks are shared with sequences of the same salt alone
    owner: str = ""  # on whose behalf it runs; owners share the engine evenly
    priority: int = 0  # a higher one runs first
    token_ids: list[int] = field(default_factory=list)  # prompt and new tokens
    num_cached_tokens: int = 0  # leading tokens whose keys and values are in the cache
    block_table: list[int] = field(default_factory=list)  # empty unless it runs
    drafter: Drafter = field(default_factory=Drafter)
    block_digests: list[bytes] = field(default_factory=list)  # kept by the block allocator
    num_computed_tokens: int = 0  # until the first new token; twice computed counts twice
    num_charged_tokens: int = 0  # leading tokens that count as its owner's service already
    arrived_at_s: float = 0.0
    has_started: bool = False  # admitted once, though perhaps preempted since
    last_token_at_s: float | None = None
    # Gathered chunk by chunk: of the prompt, and [H] when pooled.
    prompt_logprobs: list[TokenLogprobs | None] = field(default_factory=list)
    hidden_sum: DoubleArray | None = None

    def __post_init__(self) -> None:
        if not self.token_ids:
            self.token_ids = list(self.prompt_ids)

    @property
    def num_prompt_tokens(self) -> int:
        return len(self.prompt_ids)

    @property
    def num_new_tokens(self) -> int:
        return len(self.token_ids) - len(self.prompt_ids)

    @property
    def num_missing_tokens(self) -> int:
        """Count the tokens without keys and values; one while it decodes."""
        return len(self.token_ids) - self.num_cached_tokens

    @property
    def num_reused_tokens(self) -> int:
        """Count the tokens of the prompt that did not have to be computed."""
        return max(len(self.prompt_ids) - self.num_computed_tokens, 0)

    @property
    def num_reusable_tokens(self) -> int:
        """Count the leading tokens that need no computation if keys and values are known.

        The last one makes logits, always; each token of a prompt whose log-probabilities are wanted
        makes some, until they are there; each of an embedding's is part of its mean.
        """
        if self.is_pooled:
            return 0
        gathered = len(self.prompt_logprobs)
        if self.params.num_prompt_logprobs is not None and gathered < len(self.prompt_ids):
            return max(gathered - 1, 0)
        return len(self.token_ids) - 1

    @property
    def max_tokens(self) -> int:
        """Return the most tokens this sequence can ever hold: no more than the whole cache."""
        return len(self.prompt_ids) + (0 if self.is_pooled else self.params.max_new_tokens)

    def make_event(
        self,
        token_id: int | None,
        logprobs: TokenLogprobs | None,
        finish_reason: FinishReason | None,
    ) -> TokenEvent:
        """Make a step's event; the first one carries the prompt's log-probabilities."""
        is_first = self.num_new_tokens <= 1
        if not is_first:
            return TokenEvent(self.sequence_id, token_id, logprobs, finish_reason)
        prompt_logprobs, embedding = None, None
        if self.params.num_prompt_logprobs is not None:
            prompt_logprobs = tuple(self.prompt_logprobs or [None])
        if self.hidden_sum is not None:
            embedding = (self.hidden_sum / len(self.prompt_ids)).astype(np.float32)
        return TokenEvent(
            self.sequence_id,
            token_id,
            logprobs,
            finish_reason,
            prompt_logprobs=prompt_logprobs,
            num_reused_tokens=self.num_reused_tokens,
            embedding=embedding,
        )


class LogitRows(StrEnum):
    """Which rows of a chunk need logits."""

    NONE = "none"
    LAST = "last"
    ALL = "all"


class Chunk(NamedTuple):
    """A run of one sequence's tokens [start, start + length) to compute in one forward pass."""

    sequence: Sequence
    start: int
    length: int
    rows: LogitRows
    draft: tuple[int, ...] = ()  # its last tokens, if they are guesses at what comes next

    @property
    def token_ids(self) -> list[int]:
        known = self.sequence.token_ids[self.start : self.start + self.length]
        return [*known, *self.draft] if self.draft else known

    @property
    def is_sampled(self) -> bool:
        """True when it reaches the end of what is known and a new token is wanted."""
        sequence = self.sequence
        reaches_end = self.start + self.length - len(self.draft) == len(sequence.token_ids)
        return reaches_end and not sequence.is_pooled and sequence.params.max_new_tokens > 0


@dataclass(frozen=True, slots=True)
class Batch:
    """One forward pass: prefill chunks and single decode tokens mixed."""

    chunks: tuple[Chunk, ...]
    started: tuple[Sequence, ...] = ()  # those of them that are computed for the first time
    preempted: tuple[Sequence, ...] = ()  # those that gave their blocks up for it
    num_reused_tokens: int = 0  # found in the cache on the way here, and not computed

    @property
    def num_tokens(self) -> int:
        return sum(chunk.length for chunk in self.chunks)


@dataclass(frozen=True, slots=True)
class ChunkOutput:
    """The result for one chunk: logits [R, V] of the rows asked for; if pooled, the sum of the
    final hidden states [H], best in float64: then chunk sizes leave an embedding's bits alone.
    """

    logits: FloatArray | None = None
    hidden_sum: FloatArray | DoubleArray | None = None
