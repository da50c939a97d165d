"""The four ways to write prompts: a text, texts, token ids, lists of token ids."""

from __future__ import annotations

from typing import Annotated

from pydantic import Discriminator, Field, JsonValue, Tag

from appliance.api.http.errors import REFUSED
from appliance.api.schema.fields import MAX_COUNT
from appliance.errors import ContextLengthExceeded

MAX_PROMPTS = 64
NAMES_OF_IDS = frozenset({"prompt", "input", "tokens"})

TokenIds = Annotated[
    list[Annotated[int, Field(ge=0, le=MAX_COUNT)]], Field(min_length=1, fail_fast=True)
]


def prompt_kind(value: object) -> str | None:
    """Name the kind of a prompt; of a list, its first entry decides."""
    if isinstance(value, str):
        return "@text"
    if not isinstance(value, list) or not value:
        return None
    kinds = {str: "@texts", int: "@ids", list: "@lists"}
    return kinds.get(type(value[0]))


Prompts = Annotated[
    Annotated[str, Tag("@text")]
    | Annotated[list[str], Field(max_length=MAX_PROMPTS, fail_fast=True), Tag("@texts")]
    | Annotated[TokenIds, Tag("@ids")]
    | Annotated[list[TokenIds], Field(max_length=MAX_PROMPTS, fail_fast=True), Tag("@lists")],
    Discriminator(
        prompt_kind,
        custom_error_type=REFUSED,
        custom_error_message="must be a string, a list of strings, a list of token ids"
        " or a list of lists of token ids, and not empty",
    ),
]


def check_num_ids(body: JsonValue, max_context_tokens: int | None) -> None:
    """Refuse more token ids than the context holds before each of them is looked at."""
    if not isinstance(body, dict) or max_context_tokens is None:
        return
    for name in NAMES_OF_IDS & body.keys():
        value = body[name]
        if not isinstance(value, list):
            continue
        lists = value[:MAX_PROMPTS] if prompt_kind(value) == "@lists" else [value]
        num_ids = max(map(_num_ids, lists))
        if num_ids > max_context_tokens:
            raise ContextLengthExceeded.of(num_ids, max_context_tokens, param=name)


def _num_ids(value: JsonValue) -> int:
    return len(value) if isinstance(value, list) and prompt_kind(value) == "@ids" else 0


def split_prompts(
    prompts: str | list[str] | list[int] | list[list[int]],
) -> list[str | tuple[int, ...]]:
    """One entry a prompt."""
    if isinstance(prompts, str):
        return [prompts]
    if isinstance(prompts[0], int):
        return [tuple(entry for entry in prompts if isinstance(entry, int))]
    return [
        entry if isinstance(entry, str) else tuple(entry)
        for entry in prompts
        if not isinstance(entry, int)
    ]
