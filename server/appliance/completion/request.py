"""What a client asks for, in the product's own words: prompts, tools, output formats, sampling."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeVar

from pydantic import JsonValue

from appliance.errors import ApplianceError

T = TypeVar("T")

# A seed plus the number of a choice stays below 2**53, so that JavaScript and jq keep it exactly.
SEED_BITS = 52


def draw_seed() -> int:
    """Draw the seed of a request that names none."""
    return secrets.randbits(SEED_BITS)


def given(value: T | None, default: T) -> T:
    """Return `value`, 0 included, or the default where a request leaves it out."""
    return default if value is None else value


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

    @property
    def callable_tools(self) -> tuple[Tool, ...]:
        """The tools the model is told of: with `none`, it is told of none."""
        return () if self.tool_choice.kind == "none" else self.tools


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputFormat:
    """text: free; json_object: any JSON object; json_schema: JSON that fits `schema`."""

    kind: Literal["text", "json_object", "json_schema"] = "text"
    schema: Mapping[str, JsonValue] | None = None


class Reservation(Protocol):
    """Tokens that an answer may take."""

    def on_end(self, end: Callable[[ApplianceError], None]) -> None:
        """`end` is called if the asker loses its access before the answer is complete."""

    def settle(self, num_tokens: int) -> None:
        """Give back what was not used. Only the first call counts."""


class Account(Protocol):
    """What the asker of a request may still use."""

    def reserve(self, num_tokens: int) -> Reservation:
        """Take tokens for prompt and answers; raises RateLimited or QuotaExceeded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionRequest:
    """One request for text, in the product's own words.

    A limit of None is as much as the context holds; sampling of None is what the model recommends.
    """

    request_id: str
    prompt: str | tuple[int, ...] | ChatPrompt
    max_new_tokens: int | None = None
    max_total_tokens: int | None = None  # prompt plus new; with both, they must agree
    default_new_tokens: int | None = None  # without a limit: so many, or what the context holds
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int = field(default_factory=draw_seed)  # choice i uses seed + i
    stop: tuple[str, ...] = ()
    n: int = 1
    num_logprobs: int | None = None
    num_prompt_logprobs: int | None = None
    returns_token_ids: bool = False  # with every delta, those of the answer
    output: OutputFormat = OutputFormat()
    cache_salt: bytes = b""  # computed prompts are shared with requests of the same salt alone
    owner: str = ""  # who asks: owners share the engine evenly; never shown to another
    priority: int = 0  # a higher one is served first
    account: Account | None = None  # who pays for it, if tokens are counted
