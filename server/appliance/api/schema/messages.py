"""The messages of a conversation, as requests carry them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, Self

from pydantic import Discriminator, Field, JsonValue, Tag, model_validator
from pydantic_core import PydanticCustomError

from appliance.api.http.body import parse_json
from appliance.api.http.errors import REFUSED, UNSUPPORTED
from appliance.api.schema.fields import RequestModel, one_or_list, only, refuse
from appliance.api.schema.neutral import OF_MESSAGES
from appliance.errors import InvalidRequest

MAX_MESSAGES = 2048
MAX_PARTS = 256
MAX_TOOL_CALLS = 128
MEDIA = ("image_url", "input_audio", "file", "image", "video_url")

Name = Annotated[
    str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$", description="1 to 64 of a-z, A-Z, 0-9, _ and -.")
]


class TextPart(RequestModel):
    """A piece of a message's text."""

    type: Literal["text"]
    text: Annotated[str, Field(description="The text.")]

    @model_validator(mode="before")
    @classmethod
    def _refuse_media(cls, data: object) -> object:
        kind = data.get("type") if isinstance(data, dict) else None
        if kind in MEDIA:
            raise PydanticCustomError(
                UNSUPPORTED, "is {kind}; this model reads text only", {"kind": kind}
            )
        return data


Content = Annotated[
    Annotated[str, Tag("@one")]
    | Annotated[
        list[TextPart], Field(min_length=1, max_length=MAX_PARTS, fail_fast=True), Tag("@list")
    ],
    Discriminator(
        one_or_list,
        custom_error_type=REFUSED,
        custom_error_message="must be a string or a list of text parts",
    ),
]


class CalledFunction(RequestModel):
    """Which function was called with what."""

    name: Name
    arguments: Annotated[str, Field(description="A JSON object, as text.")]


class MadeToolCall(RequestModel):
    """A tool call of an earlier answer."""

    id: Annotated[str, Field(max_length=128, description="The id it came with.")]
    type: Literal["function"]
    function: CalledFunction


class Message(RequestModel):
    """One turn. An assistant's message may be sent back as it came."""

    neutral = OF_MESSAGES

    role: Annotated[
        Literal["system", "developer", "user", "assistant", "tool"],
        Field(description="developer is taken as system."),
    ]
    content: Content | None = None
    name: Name | None = None
    tool_calls: (
        Annotated[list[MadeToolCall], Field(max_length=MAX_TOOL_CALLS, fail_fast=True)] | None
    ) = None
    tool_call_id: Annotated[
        str | None, Field(max_length=128, description="Which tool call this is the result of.")
    ] = None
    refusal: Annotated[
        None, Field(description="Accepted as null."), only(None, why="leave it out")
    ] = None
    audio: Annotated[
        None, Field(description="Accepted as null."), only(None, why="this model reads text only")
    ] = None
    function_call: Annotated[
        None, Field(description="Accepted as null."), only(None, why="use tool_calls")
    ] = None
    annotations: Annotated[
        list[JsonValue] | None,
        only(None, [], why="leave it out"),
        Field(description="Accepted empty."),
    ] = None

    @model_validator(mode="after")
    def _check_role(self) -> Self:
        if self.tool_calls and self.role != "assistant":
            raise refuse("has tool_calls, which only an assistant's message can have")
        if (self.tool_call_id is not None) != (self.role == "tool"):
            raise refuse("must have tool_call_id if its role is tool, and only then")
        if self.content is None and not self.tool_calls:
            raise refuse("has no content")
        return self


def template_messages(messages: Sequence[Message]) -> tuple[Mapping[str, JsonValue], ...]:
    """Messages as chat templates know them: text alone, and arguments as an object."""
    return tuple(
        _template_message(message, f"messages[{number}]") for number, message in enumerate(messages)
    )


def _template_message(message: Message, param: str) -> Mapping[str, JsonValue]:
    plain: dict[str, JsonValue] = {
        "role": "system" if message.role == "developer" else message.role,
        "content": _text(message.content),
    }
    if message.name is not None:
        plain["name"] = message.name
    if message.tool_call_id is not None:
        plain["tool_call_id"] = message.tool_call_id
    if message.tool_calls:
        plain["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {
                    "name": call.function.name,
                    "arguments": _arguments(
                        call.function.arguments, f"{param}.tool_calls[{number}].function.arguments"
                    ),
                },
            }
            for number, call in enumerate(message.tool_calls)
        ]
    return plain


def _text(content: str | list[TextPart] | None) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    return "\n".join(part.text for part in content)


def _arguments(text: str, param: str) -> JsonValue:
    try:
        arguments = parse_json(text.encode() or b"{}")
    except InvalidRequest:
        arguments = None
    if not isinstance(arguments, dict):
        raise InvalidRequest(f"`{param}` must be a JSON object, as text.", param=param)
    return arguments
