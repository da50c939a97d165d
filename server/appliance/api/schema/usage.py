"""Writes how many tokens a request took, the same way in every face."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from pydantic import Field

from appliance.api.schema.answer import AnswerModel
from appliance.completion import Usage


class PromptTokensDetails(AnswerModel):
    """What became of the prompt's tokens."""

    cached_tokens: Annotated[
        int, Field(description="Tokens that an earlier prompt began with too: not computed again.")
    ]


class UsageObject(AnswerModel):
    """Tokens of one request."""

    prompt_tokens: Annotated[int, Field(description="Tokens of the prompt.")]
    completion_tokens: Annotated[int, Field(description="Tokens of all answers together.")]
    total_tokens: Annotated[int, Field(description="Their sum.")]


class OpenAIUsageObject(UsageObject):
    """Tokens of one request, as in OpenAI's API."""

    prompt_tokens_details: PromptTokensDetails


def usage_dict(usage: Usage) -> dict[str, int]:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
    }


def openai_usage_dict(usage: Usage) -> dict[str, object]:
    details = {"cached_tokens": usage.cached_tokens}
    return {**usage_dict(usage), "prompt_tokens_details": details}


def add_usage(parts: Iterable[Usage]) -> Usage:
    usages = list(parts)
    return Usage(
        prompt_tokens=sum(usage.prompt_tokens for usage in usages),
        completion_tokens=sum(usage.completion_tokens for usage in usages),
        cached_tokens=sum(usage.cached_tokens for usage in usages),
    )
