"""The answer of POST /v1/chat/completions, as the API's description has it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from appliance.api.openai.logprobs import ChatLogprobs
from appliance.api.schema.answer import AnswerModel
from appliance.api.schema.repeat import AnswerTokenIds, PromptTokenIds, Seed
from appliance.api.schema.usage import OpenAIUsageObject


class FunctionCall(AnswerModel):
    """The call itself."""

    name: Annotated[str, Field(description="One of the request's tools.")]
    arguments: Annotated[str, Field(description="A JSON object, as text.")]


class ToolCallObject(AnswerModel):
    """A tool call the model made."""

    id: Annotated[str, Field(description="Send it back as tool_call_id.")]
    type: Literal["function"]
    function: FunctionCall


class AnswerMessage(AnswerModel):
    """The assistant's message."""

    role: Literal["assistant"]
    content: Annotated[str | None, Field(description="null when there are only tool calls.")]
    refusal: Annotated[None, Field(description="Always null.")]
    tool_calls: list[ToolCallObject] = []  # noqa: RUF012  pydantic copies it


class ChatChoice(AnswerModel):
    """One of n answers."""

    index: Annotated[int, Field(description="0 to n - 1.")]
    message: AnswerMessage
    logprobs: ChatLogprobs | None
    finish_reason: Annotated[
        Literal["stop", "length", "tool_calls"],
        Field(description="stop: it ended; length: it was cut; tool_calls: it waits for tools."),
    ]
    token_ids: AnswerTokenIds = None


class ChatCompletion(AnswerModel):
    """The answers to a conversation."""

    id: Annotated[str, Field(description="Names this answer.")]
    object: Literal["chat.completion"]
    created: Annotated[int, Field(description="Unix time in seconds.")]
    model: Annotated[str, Field(description="The model that answered.")]
    system_fingerprint: Annotated[
        str, Field(description="Changes when anything changes that can change an answer.")
    ]
    choices: list[ChatChoice]
    usage: OpenAIUsageObject
    seed: Seed
    prompt_token_ids: PromptTokenIds = None
