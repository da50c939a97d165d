"""The engine's nouns: sampling parameters, sequences, batches and the events they end in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]


class FinishReason(StrEnum):
    """Why a sequence ended; every submitted sequence ends in exactly one of these."""

    STOP = "stop"  # a stop token, or a completed grammar
    LENGTH = "length"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"  # waited in the queue longer than allowed
    FAILED = "failed"  # the forward pass raised; the server lives on


class Constraint(Protocol):
    """A grammar's view of one sequence: which tokens may come next. Called from the engine thread only."""

    def apply(self, logits: FloatArray) -> None:
        """Set the logits [V] of forbidden tokens to minus infinity, in place."""

    def accept(self, token_id: int) -> None:
        """Advance by the token that was sampled."""

    @property
    def is_complete(self) -> bool:
        """True when nothing but the end may follow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How to choose tokens. `temperature` 0 is greedy; `seed` is always concrete, so every answer can be repeated."""

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


@dataclass(frozen=True, slots=True)
class TokenEvent:
    """What one engine step says about one sequence. The last event of a sequence carries `finish_reason`."""

    sequence_id: int
    token_id: int | None = None
    logprobs: TokenLogprobs | None = None
    finish_reason: FinishReason | None = None
    prompt_logprobs: tuple[TokenLogprobs | None, ...] | None = None  # on the first event, when asked for
    embedding: FloatArray | None = None  # [H], on the only event of a pooled sequence


@dataclass(slots=True, kw_only=True, eq=False)
class Sequence:
    """One completion as the engine sees it; owned by the engine thread once submitted."""

    sequence_id: int
    prompt_ids: tuple[int, ...]
    params: SamplingParams
    constraint: Constraint | None = None
    is_pooled: bool = False  # an embedding: prefill only, the mean of the final hidden states
    token_ids: list[int] = field(default_factory=list)  # prompt and new tokens
    num_cached_tokens: int = 0  # leading tokens whose keys and values are in the cache
    block_table: list[int] = field(default_factory=list)
    arrived_at_s: float = 0.0

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
    def max_tokens(self) -> int:
        """The most tokens this sequence can ever hold: what admission reserves."""
        return len(self.prompt_ids) + self.params.max_new_tokens


class LogitRows(StrEnum):
    """Which rows of a chunk need logits."""

    NONE = "none"
    LAST = "last"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class Chunk:
    """A run of one sequence's tokens [start, start + length) to compute in one forward pass."""

    sequence: Sequence
    start: int
    length: int
    rows: LogitRows

    @property
    def token_ids(self) -> list[int]:
        return self.sequence.token_ids[self.start : self.start + self.length]


@dataclass(frozen=True, slots=True)
class Batch:
    """One forward pass: prefill chunks and single decode tokens mixed."""

    chunks: tuple[Chunk, ...]

    @property
    def num_tokens(self) -> int:
        return sum(chunk.length for chunk in self.chunks)


@dataclass(frozen=True, slots=True)
class ChunkOutput:
    """The result for one chunk: logits [R, V] for the rows asked for; the sum of final hidden states [H] if pooled."""

    logits: FloatArray | None = None
    hidden_sum: FloatArray | None = None
