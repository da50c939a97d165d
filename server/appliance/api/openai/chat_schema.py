"""The body of POST /v1/chat/completions."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Literal, Self

from pydantic import (
    Discriminator,
    Field,
    JsonValue,
    Tag,
    model_validator,
)

from appliance.api.http.errors import REFUSED
from appliance.api.openai.shared import MAX_TOP_LOGPROBS, OpenAIRequest
from appliance.api.schema.fields import MAX_COUNT, RequestModel
from appliance.api.schema.messages import MAX_MESSAGES, Message, Name
from appliance.api.schema.neutral import OF_CHAT
from appliance.errors import InvalidRequest

MAX_TOOLS = 128

JsonSchema = Annotated[dict[str, JsonValue], Field(description="A JSON schema.")]


class FunctionSpec(RequestModel):
    """A function the model may call."""

    name: Name
    description: Annotated[
        str | None, Field(max_length=8192, description="What it does, for the model.")
    ] = None
    parameters: JsonSchema | None = None
    strict: Annotated[
        bool | None, Field(description="Accepted; a forced call always fits its schema.")
    ] = None


class ToolSpec(RequestModel):
    """A tool; functions are the only kind."""

    type: Literal["function"]
    function: FunctionSpec


class NamedFunction(RequestModel):
    """The name of one of `tools`."""

    name: Name


class NamedTool(RequestModel):
    """Call exactly this function."""

    type: Literal["function"]
    function: NamedFunction


def word_or_named(value: object) -> str | None:
    if isinstance(value, str):
        return "@word"
    return "@named" if isinstance(value, dict) else None


ToolChoiceField = Annotated[
    Annotated[Literal["auto", "none", "required"], Tag("@word")]
    | Annotated[NamedTool, Tag("@named")],
    Discriminator(
        word_or_named,
        custom_error_type=REFUSED,
        custom_error_message="must be auto, none, required or an object that names a function",
    ),
]


class TextFormat(RequestModel):
    """Free text."""

    type: Literal["text"]


class JsonObjectFormat(RequestModel):
    """Some JSON object."""

    type: Literal["json_object"]


class SchemaSpec(RequestModel):
    """The schema an answer must fit."""

    name: Name
    description: Annotated[
        str | None, Field(max_length=8192, description="Accepted; the schema says it all.")
    ] = None
    schema_: Annotated[JsonSchema, Field(alias="schema")]
    strict: Annotated[bool | None, Field(description="Accepted; the schema always holds.")] = None


class JsonSchemaFormat(RequestModel):
    """JSON that fits a schema, held by constrained decoding."""

    type: Literal["json_schema"]
    json_schema: SchemaSpec


def format_kind(value: object) -> str | None:
    kind = value.get("type") if isinstance(value, dict) else None
    return f"@{kind}" if kind in ("text", "json_object", "json_schema") else None


ResponseFormat = Annotated[
    Annotated[TextFormat, Tag("@text")]
    | Annotated[JsonObjectFormat, Tag("@json_object")]
    | Annotated[JsonSchemaFormat, Tag("@json_schema")],
    Discriminator(
        format_kind,
        custom_error_type=REFUSED,
        custom_error_message="must be an object whose type is text, json_object or json_schema",
    ),
]


class ChatRequest(OpenAIRequest):
    """A conversation to answer."""

    neutral = OF_CHAT

    messages: Annotated[
        list[Message],
        Field(
            min_length=1,
            max_length=MAX_MESSAGES,
            description="The conversation so far.",
            fail_fast=True,
        ),
    ]
    max_completion_tokens: Annotated[
        int | None,
        Field(
            ge=1, le=MAX_COUNT, description="Tokens of an answer; default: what the context holds."
        ),
    ] = None
    max_tokens: Annotated[
        int | None, Field(ge=1, le=MAX_COUNT, description="The older name of the same.")
    ] = None
    logprobs: Annotated[
        bool | None, Field(description="Tell the log-probability of each token of the answer.")
    ] = False
    top_logprobs: Annotated[
        int | None,
        Field(ge=0, le=MAX_TOP_LOGPROBS, description="And of this many likeliest ones."),
    ] = None
    response_format: ResponseFormat | None = None
    tools: Annotated[list[ToolSpec], Field(max_length=MAX_TOOLS, fail_fast=True)] | None = None
    tool_choice: Annotated[
        ToolChoiceField | None, Field(description="Default: auto with tools, none without.")
    ] = None
    parallel_tool_calls: Annotated[
        bool | None, Field(description="false: an answer has at most one tool call.")
    ] = True

    @model_validator(mode="after")
    def _check_limits(self) -> Self:
        if None not in (self.max_tokens, self.max_completion_tokens) and (
            self.max_tokens != self.max_completion_tokens
        ):
            raise InvalidRequest(
                "`max_tokens` and `max_completion_tokens` differ; send one.", param="max_tokens"
            )
        if self.top_logprobs and not self.logprobs:
            raise InvalidRequest("`top_logprobs` needs logprobs to be true.", param="top_logprobs")
        return self

    @model_validator(mode="after")
    def _check_tools(self) -> Self:
        names = [tool.function.name for tool in self.tools or ()]
        if any(count > 1 for count in Counter(names).values()):
            raise InvalidRequest("`tools` has two functions of the same name.", param="tools")
        choice = self.tool_choice
        if choice in (None, "auto", "none"):
            return self
        if not names:
            raise InvalidRequest(
                "`tool_choice` asks for a call, but there are no tools.", param="tool_choice"
            )
        if isinstance(choice, NamedTool) and choice.function.name not in names:
            raise InvalidRequest(
                "`tool_choice` names a function that is not in tools.", param="tool_choice"
            )
        if self.response_format is not None and self.response_format.type != "text":
            raise InvalidRequest(
                "`response_format` asks for JSON and `tool_choice` for a tool call; send one.",
                param="response_format",
            )
        return self
