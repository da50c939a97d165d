"""Log-probabilities in the two shapes of OpenAI's API."""

from __future__ import annotations

import codecs
import re
from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from appliance.api.schema.answer import AnswerModel
from appliance.completion import TokenChoice

# JSON has no minus infinity; this is what OpenAI's API says for a token that could not come.
LEAST_LOGPROB = -9999.0

TextLogprobsDict = dict[str, Sequence[object]]  # as in TextLogprobs

# How far behind its place a token is looked for: tokenizers rewrite some characters of a prompt.
MAX_SKIPPED_CHARS = 16
CUT_CHARACTERS = re.compile("\ufffd+")


class ChatTopLogprob(AnswerModel):
    """One token that could have come."""

    token: Annotated[str, Field(description="The token as text.")]
    logprob: Annotated[float, Field(description="Natural logarithm of its probability.")]
    bytes: Annotated[list[int] | None, Field(description="The token's UTF-8 bytes.")]


class ChatTokenLogprob(ChatTopLogprob):
    """One token of the answer and the likeliest ones at its place."""

    top_logprobs: Annotated[list[ChatTopLogprob], Field(description="Likeliest first.")]


class ChatLogprobs(AnswerModel):
    """Log-probabilities of a chat answer."""

    content: Annotated[list[ChatTokenLogprob] | None, Field(description="Token by token.")]
    refusal: Annotated[None, Field(description="Always null.")] = None


class TextLogprobs(AnswerModel):
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


def token_bytes(tokens: Sequence[TokenChoice | None], unseen: bytes = b"") -> list[bytes]:
    return [unseen if token is None else token.bytes for token in tokens]


def text_logprobs(
    tokens: Sequence[TokenChoice | None], offsets: list[int], unseen: bytes = b""
) -> TextLogprobsDict:
    """`unseen` is what None stands for: the token nothing came before."""
    return {
        "tokens": [
            unseen.decode(errors="replace") if token is None else token.text for token in tokens
        ],
        "token_logprobs": [
            None if token is None else max(token.logprob, LEAST_LOGPROB) for token in tokens
        ],
        "top_logprobs": [None if token is None else _top_of(token) for token in tokens],
        "text_offset": offsets,
    }


class TextOffsets:
    """Where each token begins in a text, in characters, as both grow.

    A token that ends a character begins where the character does. One whose text is not there, as
    a special token's that is left out, begins where the next does.
    """

    def __init__(self, start: int = 0) -> None:
        self._end = start  # of the text that has found its tokens
        self._rest = ""
        self._is_at_start = start == 0
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def place(self, pieces: Sequence[bytes], text: str) -> list[int]:
        """`text` is what came with the tokens of these bytes."""
        self._rest += text
        position = 0
        offsets = []
        for piece in pieces:
            num_skipped, num_chars = self._find(piece, position)
            offsets.append(self._end + position + num_skipped)
            position += num_skipped + num_chars
        self._end, self._rest = self._end + position, self._rest[position:]
        return offsets

    def _find(self, piece: bytes, position: int) -> tuple[int, int]:
        """How many characters before the token have none, and how many end in it."""
        state = self._utf8.getstate()
        found = self._utf8.decode(piece)
        if self._is_at_start and found:
            self._is_at_start = False
            if not self._rest.startswith(" "):  # some tokenizers put a space before a text
                found = found.removeprefix(" ")
        if not found:
            return 0, 0
        at = self._rest.find(found, position, position + len(found) + MAX_SKIPPED_CHARS)
        if at >= 0:
            return at - position, len(found)
        if "\ufffd" in found:  # a character that is cut here may be whole in the text
            num_chars = len(CUT_CHARACTERS.sub("\ufffd", found))
            return 0, min(num_chars, len(self._rest) - position)
        self._utf8.setstate(state)
        return 0, 0


def _top_of(token: TokenChoice) -> dict[str, float]:
    """The likeliest tokens and the one that came; of tokens with the same text, the likelier."""
    top: dict[str, float] = {}
    for choice in (*token.top, token):
        top.setdefault(choice.text, max(choice.logprob, LEAST_LOGPROB))
    return top
