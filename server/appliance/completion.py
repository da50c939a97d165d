"""Messages or a prompt in, a stream of text deltas out: the one service that every HTTP face translates."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from pydantic import JsonValue

FinishWord = Literal["stop", "length", "tool_calls"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A function the model may call. `parameters` is a JSON schema of an object."""

    name: str
    description: str = ""
    parameters: Mapping[str, JsonValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolChoice:
    """auto: the model decides; none: text only; required: some tool; named: exactly `name`."""

    kind: Literal["auto", "none", "required", "named"] = "auto"
    name: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatPrompt:
    """Messages as the chat template takes them: role, content, tool_calls, tool_call_id, name."""

    messages: tuple[Mapping[str, JsonValue], ...]
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice = ToolChoice()


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputFormat:
    """text: free; json_object: any JSON object; json_schema: JSON that fits `schema`."""

    kind: Literal["text", "json_object", "json_schema"] = "text"
    schema: Mapping[str, JsonValue] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionRequest:
    """One request for text, in the product's own words. A None limit means as much as the context holds."""

    request_id: str
    prompt: str | tuple[int, ...] | ChatPrompt
    max_new_tokens: int | None = None
    max_total_tokens: int | None = None  # prompt plus new
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int | None = None
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int | None = None
    stop: tuple[str, ...] = ()
    n: int = 1
    num_logprobs: int | None = None
    num_prompt_logprobs: int | None = None
    output: OutputFormat = OutputFormat()


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """The next piece of choice `index`. The last one carries `finish_reason`."""

    index: int = 0
    text: str = ""
    tokens: tuple[TokenChoice, ...] = ()  # filled when logprobs were asked for
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: FinishWord | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    prompt_tokens: int
    completion_tokens: int

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


@dataclass(slots=True, kw_only=True)
class Choice:
    """One finished answer."""

    index: int
    text: str = ""
    tokens: list[TokenChoice] = field(default_factory=list)
    tool_calls: list[ToolCall] = field(default_factory=list)
    finish_reason: FinishWord = "stop"


class CompletionService:
    """The product. Built once in wiring.py; used from the event loop only."""

    async def start(self, request: CompletionRequest) -> CompletionStream:
        """Check, tokenize and submit a request. Every RequestError is raised here, before anything is sent."""
        raise NotImplementedError

    async def complete(self, request: CompletionRequest) -> Completion:
        """All choices of a request, finished. Cancelling the awaiting task cancels the sequences."""
        raise NotImplementedError

    async def embed(self, inputs: tuple[str | tuple[int, ...], ...]) -> Embeddings:
        """The mean of the final hidden states of each input, scaled to length 1."""
        raise NotImplementedError

    async def tokenize(self, prompt: str | ChatPrompt, *, add_special_tokens: bool = True) -> list[int]:
        raise NotImplementedError

    async def detokenize(self, token_ids: tuple[int, ...]) -> str:
        raise NotImplementedError


class CompletionStream:
    """The deltas of one request as they come, of all its choices mixed. Close it to cancel what still runs."""

    request: CompletionRequest
    prompt_choices: tuple[TokenChoice | None, ...] | None = None  # prompt logprobs, known once the first delta is out

    def __aiter__(self) -> AsyncIterator[Delta]:
        raise NotImplementedError

    @property
    def usage(self) -> Usage:
        """Tokens so far; final when the iteration has ended."""
        raise NotImplementedError

    async def aclose(self) -> None:
        raise NotImplementedError


@dataclass(slots=True, kw_only=True)
class Completion:
    """All choices of a request, finished."""

    choices: list[Choice]
    usage: Usage
    prompt_choices: tuple[TokenChoice | None, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Embeddings:
    vectors: list[list[float]]
    num_tokens: int
