"""Log-probabilities in the two shapes of OpenAI's API."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Annotated

from pydantic import BaseModel, Field

from appliance.completion import TokenChoice

# JSON has no minus infinity; this is what OpenAI's API says for a token that could not come.
LEAST_LOGPROB = -9999.0


class ChatTopLogprob(BaseModel):
    """One token that could have come."""

    token: Annotated[str, Field(description="The token as text.")]
    logprob: Annotated[float, Field(description="Natural logarithm of its probability.")]
    bytes: Annotated[list[int] | None, Field(description="The token's UTF-8 bytes.")]


class ChatTokenLogprob(ChatTopLogprob):
    """One token of the answer and the likeliest ones at its place."""

    top_logprobs: Annotated[list[ChatTopLogprob], Field(description="Likeliest first.")]


class ChatLogprobs(BaseModel):
    """Log-probabilities of a chat answer."""

    content: Annotated[list[ChatTokenLogprob] | None, Field(description="Token by token.")]
    refusal: Annotated[None, Field(description="Always null.")] = None


class TextLogprobs(BaseModel):
    """Log-probabilities of a text completion: four lists of the same length."""

    tokens: Annotated[list[str], Field(description="Tokens as text.")]
    token_logprobs: Annotated[
        list[float | None], Field(description="Natural logarithms of their probabilities.")
    ]
    top_logprobs: Annotated[
        list[dict[str, float] | None], Field(description="The likeliest ones at each place.")
    ]
    text_offset: Annotated[list[int], Field(description="Where each token begins in text.")]


def chat_logprobs(tokens: Sequence[TokenChoice]) -> dict[str, object]:
    content = [
        _chat_token(token) | {"top_logprobs": [_chat_token(other) for other in token.top]}
        for token in tokens
    ]
    return {"content": content, "refusal": None}


def _chat_token(token: TokenChoice) -> dict[str, object]:
    return {
        "token": token.text,
        "logprob": max(token.logprob, LEAST_LOGPROB),
        "bytes": list(token.bytes),
    }


def text_logprobs(
    tokens: Sequence[TokenChoice | None], offset: int = 0, unseen_text: str = ""
) -> dict[str, object]:
    """`offset` is where the first token begins. None is the token nothing came before."""
    texts = [unseen_text if token is None else token.text for token in tokens]
    return {
        "tokens": texts,
        "token_logprobs": [
            None if token is None else max(token.logprob, LEAST_LOGPROB) for token in tokens
        ],
        "top_logprobs": [None if token is None else _top_of(token) for token in tokens],
        "text_offset": list(accumulate(map(len, texts[:-1]), initial=offset)),
    }


def _top_of(token: TokenChoice) -> dict[str, float]:
    """The likeliest tokens and the one that came; of tokens with the same text, the likelier."""
    top: dict[str, float] = {}
    for choice in (*token.top, token):
        top.setdefault(choice.text, max(choice.logprob, LEAST_LOGPROB))
    return top
