"""What an answer says so that it can be repeated: its seed, and token ids where a client asks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

Seed = Annotated[
    int, Field(description="The seed that was used: with it the same request is answered the same.")
]
PromptTokenIds = Annotated[
    list[int] | None, Field(description="The prompt's ids; only with `return_token_ids`.")
]
AnswerTokenIds = Annotated[
    list[int] | None,
    Field(description="Every sampled id, stop token included; only with `return_token_ids`."),
]


def ids_member(name: bytes, token_ids: Sequence[int]) -> bytes:
    """Write ids as one more member of a JSON object."""
    return b',"%b":[%b]' % (name, ",".join(map(str, token_ids)).encode())
