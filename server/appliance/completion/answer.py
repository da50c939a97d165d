"""What a client gets: deltas while it streams, choices and usage when it is done."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

FinishWord = Literal["stop", "length", "tool_calls"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenChoice:
    """One token as text, with its log-probability and the best alternatives."""

    token_id: int
    text: str
    bytes: bytes
    logprob: float
    top: tuple[TokenChoice, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """A call the model made; `arguments` is JSON text."""

    call_id: str
    name: str
    arguments: str


@dataclass(slots=True, kw_only=True)  # frozen, it would cost a token more than its text does
class Delta:
    """The next piece of choice `index`. The last one carries `finish_reason`."""

    index: int = 0
    text: str = ""
    tokens: tuple[TokenChoice, ...] = ()  # filled when logprobs were asked for
    token_ids: tuple[int, ...] = ()  # sampled since the delta before, when ids were asked for
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: FinishWord | None = None

    def __add__(self, later: Delta) -> Delta:
        """Two pieces of one choice as one."""
        return Delta(
            index=self.index,
            text=self.text + later.text,
            tokens=self.tokens + later.tokens,
            token_ids=self.token_ids + later.token_ids,
            tool_calls=self.tool_calls + later.tool_calls,
            finish_reason=later.finish_reason,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0  # of the prompt: found in the key-value cache, not computed

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


@dataclass(slots=True, kw_only=True)
class Choice:
    """One finished answer."""

    index: int
    text: str = ""
    tokens: list[TokenChoice] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    tool_calls: list[ToolCall] = field(default_factory=list)
    finish_reason: FinishWord = "stop"


@dataclass(slots=True, kw_only=True)
class Completion:
    """All choices of a request, finished."""

    choices: list[Choice]
    usage: Usage
    prompt_ids: tuple[int, ...] = ()
    prompt_choices: tuple[TokenChoice | None, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Embeddings:
    vectors: list[list[float]]
    num_tokens: int
