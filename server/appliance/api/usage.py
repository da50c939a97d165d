"""How many tokens a request took, as every face tells it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from pydantic import BaseModel, Field

from appliance.completion import Usage


class UsageObject(BaseModel):
    """Tokens of one request."""

    prompt_tokens: Annotated[int, Field(description="Tokens of the prompt.")]
    completion_tokens: Annotated[int, Field(description="Tokens of all answers together.")]
    total_tokens: Annotated[int, Field(description="Their sum.")]


def usage_dict(usage: Usage) -> dict[str, int]:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
    }


def add_usage(parts: Iterable[Usage]) -> Usage:
    usages = list(parts)
    return Usage(
        prompt_tokens=sum(usage.prompt_tokens for usage in usages),
        completion_tokens=sum(usage.completion_tokens for usage in usages),
    )
