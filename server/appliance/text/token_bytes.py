"""Converts a vocabulary's stored strings to the bytes they stand for, for any decoder."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NotRequired, TypedDict

if TYPE_CHECKING:
    import tokenizers

ToBytes = Callable[[str], bytes]

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_ANCHOR = "a"  # a token that no decoder changes, to see what its neighbour becomes


@dataclass(frozen=True, slots=True)
class TokenBytes:
    """`first` where a token opens a text, `rest` elsewhere.

    The finished text loses up to `num_leading_spaces` spaces at its start.
    """

    rest: ToBytes
    first: ToBytes
    num_leading_spaces: int = 0


class _Step(TypedDict):
    """One decoder, as tokenizer.json writes it."""

    type: str
    decoders: NotRequired[list[_Step]]
    pattern: NotRequired[dict[str, str]]
    content: NotRequired[str]
    start: NotRequired[int]
    stop: NotRequired[int]
    replacement: NotRequired[str]
    prepend_scheme: NotRequired[str]


def token_bytes_of(backend: tokenizers.Tokenizer) -> TokenBytes:
    """Choose the rule that agrees with the decoder of `backend`."""
    steps = _steps(backend)
    kinds = [step["type"] for step in steps if step["type"] != "Fuse"]
    if kinds == ["ByteLevel"]:
        to_bytes = _byte_level()
        return TokenBytes(rest=to_bytes, first=to_bytes)
    if kinds and all(_is_sentencepiece(step) for step in steps) and "Strip" not in kinds[:-1]:
        return _sentencepiece(steps)
    return _by_example(backend)


def _steps(backend: tokenizers.Tokenizer) -> list[_Step]:
    if backend.decoder is None:
        return []
    decoder: _Step = json.loads(backend.decoder.__getstate__())
    return decoder.get("decoders", [decoder])


def _byte_level() -> ToBytes:
    """Decode GPT-2's alphabet: printable bytes as themselves, the others from 256 upwards."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    byte_of = {chr(byte): byte for byte in printable}
    byte_of |= {chr(256 + index): byte for index, byte in enumerate(others)}

    def to_bytes(token: str) -> bytes:
        try:
            return bytes([byte_of[character] for character in token])
        except KeyError:  # an added token, stored as plain text
            return token.encode()

    return to_bytes


def _is_sentencepiece(step: _Step) -> bool:
    match step["type"]:
        case "ByteFallback" | "Fuse" | "Metaspace":
            return True
        case "Replace":
            return "String" in step.get("pattern", {})
        case "Strip":
            return step.get("content") == " " and step.get("stop") == 0
    return False


def _sentencepiece(steps: list[_Step]) -> TokenBytes:
    replacements: list[tuple[str, str]] = []
    opening: list[tuple[str, str]] = []  # the replacements where a token opens the text
    for step in steps:
        if step["type"] == "Replace":
            pair = (step.get("pattern", {})["String"], step.get("content", ""))
            replacements.append(pair)
            opening.append(pair)
        elif step["type"] == "Metaspace":
            space = step.get("replacement", "▁")
            replacements.append((space, " "))
            opening.append((space, " " if step.get("prepend_scheme") == "never" else ""))
    has_byte_tokens = any(step["type"] == "ByteFallback" for step in steps)
    return TokenBytes(
        rest=_replacing(replacements, has_byte_tokens=has_byte_tokens),
        first=_replacing(opening, has_byte_tokens=has_byte_tokens),
        num_leading_spaces=sum(step.get("start", 0) for step in steps if step["type"] == "Strip"),
    )


def _replacing(replacements: list[tuple[str, str]], *, has_byte_tokens: bool) -> ToBytes:
    def to_bytes(token: str) -> bytes:
        for old, new in replacements:
            token = token.replace(old, new)
        if has_byte_tokens and (match := _BYTE_TOKEN.fullmatch(token)):
            return bytes([int(match[1], 16)])
        return token.encode()

    return to_bytes


def _by_example(backend: tokenizers.Tokenizer) -> TokenBytes:
    """Decode the token between two others, for rare decoders (WordPiece, none at all)."""

    def decode(tokens: list[str]) -> str:
        if backend.decoder is None:
            return " ".join(tokens)
        text: str = backend.decoder.decode(tokens)
        return text

    def rest(token: str) -> bytes:
        alone, between = decode([_ANCHOR]), decode([_ANCHOR, token, _ANCHOR])
        tail = decode([_ANCHOR, _ANCHOR])[len(alone) :]
        return between[len(alone) :].removesuffix(tail).encode()

    return TokenBytes(rest=rest, first=lambda token: decode([token]).encode())
