"""The body of POST /v1/completions and its answer."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from appliance.api.openai.logprobs import TextLogprobs
from appliance.api.openai.shared import MAX_TOP_LOGPROBS, OpenAIRequest
from appliance.api.schema.answer import AnswerModel
from appliance.api.schema.fields import MAX_COUNT
from appliance.api.schema.neutral import OF_TEXT
from appliance.api.schema.prompts import Prompts, split_prompts
from appliance.api.schema.repeat import AnswerTokenIds, PromptTokenIds, Seed
from appliance.api.schema.usage import OpenAIUsageObject
from appliance.completion import given
from appliance.errors import InvalidRequest

DEFAULT_NEW_TOKENS = 16
MAX_CHOICES_IN_ALL = 128


class CompletionsRequest(OpenAIRequest):
    """Texts to continue."""

    neutral = OF_TEXT

    prompt: Annotated[
        Prompts, Field(description="A text, texts, a list of token ids, or lists of token ids.")
    ]
    max_tokens: Annotated[
        int | None,
        Field(ge=0, le=MAX_COUNT, description="New tokens, at most. 0 is for echo: no new text."),
    ] = DEFAULT_NEW_TOKENS
    logprobs: Annotated[
        int | None,
        Field(
            ge=0,
            le=MAX_TOP_LOGPROBS,
            description="Tell the log-probability of each token and of this many likeliest ones.",
        ),
    ] = None
    echo: Annotated[
        bool | None, Field(description="Begin the text, and logprobs, with the prompt.")
    ] = False

    @model_validator(mode="after")
    def _check_limits(self) -> Self:
        if self.max_tokens == 0 and not self.echo:
            raise InvalidRequest(
                "`max_tokens` is 0; without echo it must be at least 1.", param="max_tokens"
            )
        num_choices = len(split_prompts(self.prompt)) * given(self.n, 1)
        if num_choices > MAX_CHOICES_IN_ALL:
            raise InvalidRequest(
                f"{num_choices} answers are asked for; prompts times n is at most"
                f" {MAX_CHOICES_IN_ALL}.",
                param="n",
            )
        return self


class TextChoice(AnswerModel):
    """One answer to one prompt."""

    index: Annotated[int, Field(description="The prompt's number times n, plus the answer's.")]
    text: Annotated[str, Field(description="The continuation; with echo, after the prompt.")]
    logprobs: TextLogprobs | None
    finish_reason: Annotated[
        Literal["stop", "length"], Field(description="stop: it ended; length: it was cut.")
    ]
    prompt_token_ids: PromptTokenIds = None
    token_ids: AnswerTokenIds = None


class TextCompletion(AnswerModel):
    """The answers to all prompts."""

    id: Annotated[str, Field(description="Names this answer.")]
    object: Literal["text_completion"]
    created: Annotated[int, Field(description="Unix time in seconds.")]
    model: Annotated[str, Field(description="The model that answered.")]
    system_fingerprint: Annotated[
        str, Field(description="Changes when anything changes that can change an answer.")
    ]
    choices: list[TextChoice]
    usage: OpenAIUsageObject
    seed: Seed
