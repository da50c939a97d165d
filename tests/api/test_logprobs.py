"""Where each token begins in a text: in characters, though tokens are bytes."""

from __future__ import annotations

import pytest

from appliance.api.openai.echo import Echo, echo_logprobs
from appliance.api.openai.logprobs import TextOffsets
from appliance.completion import TokenChoice

TEXT = "é€😀 hi é"


def token(piece: bytes) -> TokenChoice:
    text = piece.decode(errors="replace")
    return TokenChoice(token_id=1, text=text, bytes=piece, logprob=-1.0)


def in_bytes(text: str) -> list[bytes]:
    return [bytes([byte]) for byte in text.encode()]


def test_a_token_of_a_cut_character_begins_where_the_character_does() -> None:
    offsets = TextOffsets().place(in_bytes("é€😀 hi"), "é€😀 hi")
    assert offsets == [0, 0, 1, 1, 1, 2, 2, 2, 2, 3, 4, 5]


def test_offsets_go_on_from_piece_to_piece() -> None:
    """A token comes when all of its text has come; of the last one a stop string may cut some."""
    text = TextOffsets(10)
    assert text.place([b"\xc3"], "") == [10]
    assert text.place([], "é") == []
    assert text.place([b"\xa9 a", b"b"], " ab") == [10, 13]
    assert text.place([b" c.", b" STOP"], " c") == [14, 14]


@pytest.mark.parametrize(
    ("pieces", "text", "offsets"),
    [
        ([b"<s>", b"ab", b"c"], "abc", [0, 0, 2]),
        ([b"ab", b"<|x|>", b"c"], "abc", [0, 2, 2]),
        ([b"ab", b"c", b"</s>"], "abc", [0, 2, 3]),
        ([b" ab", b" c"], "ab c", [0, 2]),
        ([b" ab", b" c"], " ab c", [0, 3]),
        ([b"ab", b"\xff", b"c"], "ab\ufffdc", [0, 2, 3]),
        (["\u00e9".encode(), b" hi"], "e\u0301 hi", [0, 2]),
        ([b"\xa9", b" a"], "\u00e9 a", [0, 1]),
        ([b"\x9f\x98\x80", b" a"], "\U0001f600 a", [0, 1]),
    ],
    ids=[
        "a begin token", "a special token", "an end token", "a space put in front", "a space",
        "no text", "rewritten", "cut by the prompt", "cut earlier",
    ],
)  # fmt: skip
def test_a_token_without_text_of_its_own_takes_no_place(
    pieces: list[bytes], text: str, offsets: list[int]
) -> None:
    assert TextOffsets().place(pieces, text) == offsets


@pytest.mark.parametrize("begins", [True, False], ids=["begin token", "none"])
def test_an_echo_in_other_alphabets_is_placed_right(begins: bool) -> None:
    pieces = in_bytes(TEXT) if begins else in_bytes(TEXT)[1:]
    logprobs = echo_logprobs(Echo(TEXT), (None, *map(token, pieces)))
    assert max(map(int, map(str, logprobs["text_offset"]))) == len(TEXT) - 1
    assert logprobs["text_offset"][-3:] == [6, 7, 7]
    assert logprobs["tokens"][0] == ("" if begins else "\ufffd")


def test_an_echo_of_token_ids_that_are_no_whole_text_is_placed() -> None:
    tokens = (None, token(b"b"), token(b"\xc3"))
    logprobs = echo_logprobs(Echo("ab\ufffd"), tokens)
    assert logprobs["tokens"] == ["a", "b", "\ufffd"]
    assert logprobs["text_offset"] == [0, 1, 2]
