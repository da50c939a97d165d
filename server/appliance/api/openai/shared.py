"""The parameters that chat and text completions have in common."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from appliance.api.schema.fields import (
    ModelName,
    RequestModel,
    SamplingFields,
    SamplingModel,
    only,
    refuse,
)
from appliance.completion import Provenance, given
from appliance.errors import InvalidRequest

MAX_CHOICES = 8
MAX_TOP_LOGPROBS = 20
MAX_BIASED_TOKENS = 1024


def check_bias(bias: Mapping[str, float]) -> Mapping[str, float]:
    for token_id in bias:
        if not (token_id.isascii() and token_id.isdigit() and len(token_id) <= 10):
            raise refuse("has a key that is no token id; keys are token ids as strings")
    return bias


def answer_head(prefix: str, kind: str, identity: Provenance) -> dict[str, object]:
    """What an answer of either kind begins with."""
    return {
        "id": f"{prefix}-{uuid.uuid4().hex}",
        "object": kind,
        "created": int(time.time()),
        "model": identity.model,
        "system_fingerprint": identity.fingerprint,
    }


class StreamOptions(RequestModel):
    """Options of a stream."""

    include_usage: Annotated[
        bool | None, Field(description="End the stream with an event that has the usage.")
    ] = False
    include_obfuscation: Annotated[
        Literal[False] | None,
        only(False, None, why="events carry no padding"),
        Field(description="Accepted as false: events carry no padding."),
    ] = None
    continuous_usage_stats: Annotated[
        Literal[False] | None,
        only(False, None, why="usage comes at the end, with include_usage"),
        Field(description="Accepted as false: usage comes at the end."),
    ] = None


class CompletionFields(SamplingFields):
    """The further parts of CompletionRequest that both OpenAI faces fill."""

    n: int
    presence_penalty: float
    frequency_penalty: float
    logit_bias: dict[int, float]


class OpenAIRequest(SamplingModel):
    """top_k, min_p and repetition_penalty are extensions; the others are as in OpenAI's API."""

    model: ModelName
    n: Annotated[
        int | None, Field(ge=1, le=MAX_CHOICES, description="How many answers to make.")
    ] = 1
    presence_penalty: Annotated[
        float | None, Field(ge=-2, le=2, description="Above 0: less of what the answer said once.")
    ] = 0.0
    frequency_penalty: Annotated[
        float | None, Field(ge=-2, le=2, description="Above 0: less of what it said often.")
    ] = 0.0
    logit_bias: Annotated[
        Annotated[
            dict[str, Annotated[float, Field(ge=-100, le=100)]],
            Field(max_length=MAX_BIASED_TOKENS),
            AfterValidator(check_bias),
        ]
        | None,
        Field(description="Token id to what is added to its logit, -100 to 100."),
    ] = None
    stream_options: Annotated[StreamOptions | None, Field(description="Options of a stream.")] = (
        None
    )
    user: Annotated[str | None, Field(max_length=512, description="Accepted; changes nothing.")] = (
        None
    )
    safety_identifier: Annotated[
        str | None, Field(max_length=64, description="Accepted; changes nothing.")
    ] = None
    prompt_cache_key: Annotated[
        str | None, Field(max_length=64, description="Accepted; changes nothing.")
    ] = None
    metadata: Annotated[
        dict[
            Annotated[str, Field(max_length=64)],
            Annotated[str, Field(max_length=512)],
        ]
        | None,
        Field(max_length=16, description="Accepted; changes nothing and is not stored."),
    ] = None

    @model_validator(mode="after")
    def _check_stream_options(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise InvalidRequest(
                "`stream_options` is only for streams; set stream to true or leave it out.",
                param="stream_options",
            )
        return self

    @property
    def includes_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)

    def common(self) -> CompletionFields:
        return {
            **self.sampling(),
            "n": given(self.n, 1),
            "presence_penalty": given(self.presence_penalty, 0.0),
            "frequency_penalty": given(self.frequency_penalty, 0.0),
            "logit_bias": {int(key): bias for key, bias in (self.logit_bias or {}).items()},
        }
