"""The request fields that several faces share, each with its limits and its meaning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, TypedDict

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    JsonValue,
    Tag,
    model_validator,
)
from pydantic_core import PydanticCustomError

from appliance.api.http.errors import REFUSED, UNSUPPORTED
from appliance.api.schema.neutral import Neutral
from appliance.completion import draw_seed
from appliance.errors import UnsupportedParameter

MAX_STOP_STRINGS = 4
MAX_STOP_LENGTH = 256
MAX_COUNT = 2**31 - 1


def refuse(message: str) -> PydanticCustomError:
    """A value that cannot be honoured; `message` goes on after the parameter's name."""
    return PydanticCustomError(REFUSED, "{message}", {"message": message})


def only(*accepted: JsonValue, why: str) -> BeforeValidator:
    """For parameters that change nothing with these values and are refused with any other."""

    def check(value: JsonValue) -> JsonValue:
        if not any(type(value) is type(known) and value == known for known in accepted):
            raise PydanticCustomError(
                UNSUPPORTED, "is not supported with this value; {why}", {"why": why}
            )
        return value

    return BeforeValidator(check)


def one_or_list(value: object) -> str | None:
    """Which tag a value has that may be given alone or in a list."""
    if isinstance(value, str):
        return "@one"
    return "@list" if isinstance(value, list) else None


def put_required_first(schema: dict[str, Any]) -> None:
    """What a reader of /docs looks for first; the names say what titles would repeat."""
    properties: dict[str, dict[str, Any]] = schema.get("properties", {})
    required = schema.get("required", [])
    for described in properties.values():
        described.pop("title", None)
    schema["properties"] = dict(
        sorted(properties.items(), key=lambda item: item[0] not in required)
    )


class RequestModel(BaseModel):
    """A JSON object of which we know every field; `neutral` has those that may ask for nothing."""

    neutral: ClassVar[Mapping[str, Neutral]] = {}

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        json_schema_extra=put_required_first,
        defer_build=True,  # for the first request: see Route.body_adapter
    )

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: object) -> None:
        """Take a class's own fields out of its table, which several classes share."""
        super().__pydantic_init_subclass__(**kwargs)
        own = cls.model_fields
        cls.neutral = {name: rule for name, rule in cls.neutral.items() if name not in own}

    @model_validator(mode="before")
    @classmethod
    def _drop_neutral(cls, data: object) -> object:
        """Leave out what asks for nothing; refuse by name what asks for more than there is."""
        if not isinstance(data, dict) or cls.neutral.keys().isdisjoint(data):
            return data
        foreign = cls.neutral.keys() & data.keys()
        for name in sorted(foreign):
            if not cls.neutral[name].accepts(data[name]):
                raise UnsupportedParameter(cls.neutral[name].refusal(name), param=name)
        return {name: value for name, value in data.items() if name not in foreign}


ModelName = Annotated[
    str, Field(min_length=1, max_length=256, description="A model of GET /v1/models.")
]

StopString = Annotated[str, Field(min_length=1, max_length=MAX_STOP_LENGTH)]
Stop = Annotated[
    Annotated[StopString, Tag("@one")]
    | Annotated[list[StopString], Field(max_length=MAX_STOP_STRINGS, fail_fast=True), Tag("@list")],
    Discriminator(
        one_or_list,
        custom_error_type=REFUSED,
        custom_error_message="must be a string or a list of strings",
    ),
]


class SamplingFields(TypedDict):
    """What every face hands on to CompletionRequest in the same way."""

    temperature: float | None
    top_p: float | None
    top_k: int | None
    min_p: float | None
    repetition_penalty: float | None
    seed: int
    stop: tuple[str, ...]
    returns_token_ids: bool


class SamplingModel(RequestModel):
    """How tokens are chosen and where the text ends. The defaults are what the model recommends."""

    temperature: Annotated[
        float | None,
        Field(ge=0, le=2, description="0 takes the likeliest token; higher is more varied."),
    ] = None
    top_p: Annotated[
        float | None,
        Field(gt=0, le=1, description="Choose among the likeliest tokens that sum to this."),
    ] = None
    top_k: Annotated[
        int | None,
        Field(
            ge=-1,
            le=MAX_COUNT,
            description="Choose among this many likeliest tokens; 0 and -1: among all.",
        ),
    ] = None
    min_p: Annotated[
        float | None,
        Field(
            ge=0, le=1, description="Leave out tokens less likely than this times the likeliest."
        ),
    ] = None
    repetition_penalty: Annotated[
        float | None,
        Field(ge=0.01, le=10, description="Above 1: fewer tokens that were there before."),
    ] = None
    seed: Annotated[
        int | None,
        Field(
            ge=-(2**63),
            le=2**63 - 1,
            description="The same seed gives the same answer; left out, one is drawn and returned.",
        ),
    ] = None
    stop: Annotated[
        Stop | None,
        Field(description="The text ends before the first of these (at most 4)."),
    ] = None
    stream: Annotated[
        bool | None, Field(description="Send the answer as server-sent events while it grows.")
    ] = False
    return_token_ids: Annotated[
        bool | None, Field(description="Return the token ids of the prompt and of the answer.")
    ] = False

    def sampling(self) -> SamplingFields:
        return {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": MAX_COUNT if self.top_k in (0, -1) else self.top_k,  # more than there are
            "min_p": self.min_p,
            "repetition_penalty": self.repetition_penalty,
            "seed": draw_seed() if self.seed is None else self.seed,
            "stop": (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ()),
            "returns_token_ids": bool(self.return_token_ids),
        }
