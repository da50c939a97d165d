"""The laws of streaming text: the pieces add up, no cut characters, no part of a stop string."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import appliance
from appliance.text.detokenizer import Detokenizer
from appliance.text.tokenizer import Tokenizer
from tests.unit.text import tiny_tokenizers as tiny

EMBEDDED = Path(appliance.__file__).parent / "embedded" / "tokenizer.json"
KEEP_SPACES = [tiny.byte_level(), tiny.sentencepiece(), Tokenizer.from_file(EMBEDDED)]
ALL = [*KEEP_SPACES, tiny.metaspace(), tiny.wordpiece()]
every_tokenizer = pytest.mark.parametrize("tokenizer", ALL)
small_texts = st.text(alphabet="ab好", max_size=12)
stops = st.lists(st.text(alphabet="ab好", min_size=1, max_size=4), max_size=4).map(tuple)


def stream(detokenizer: Detokenizer, ids: list[int]) -> list[str]:
    return [*map(detokenizer.push, ids), detokenizer.flush()]


def cut_at_first_stop(text: str, stop: tuple[str, ...]) -> tuple[str, str | None]:
    """The definition, by brute force: the stop that is complete first, the longest of these."""
    for end in range(len(text) + 1):
        complete = [word for word in stop if text[:end].endswith(word)]
        if complete:
            found = max(complete, key=len)
            return text[: end - len(found)], found
    return text, None


@every_tokenizer
@given(data=st.data())
def test_the_pieces_of_any_ids_add_up_to_the_whole_text(
    tokenizer: Tokenizer, data: st.DataObject
) -> None:
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1), max_size=30))
    expected = tokenizer.decode(ids, skip_special_tokens=True)
    assert "".join(stream(Detokenizer(tokenizer), ids)) == expected


@pytest.mark.parametrize("tokenizer", KEEP_SPACES)
@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\ufffd")))
def test_no_piece_of_a_text_has_a_cut_character(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text, add_special_tokens=False)
    if "<unk>" in tokenizer.decode(ids, skip_special_tokens=False):
        return
    assert "\ufffd" not in "".join(stream(Detokenizer(tokenizer), ids))


@pytest.mark.parametrize("tokenizer", KEEP_SPACES)
@given(text=small_texts, stop=stops)
def test_a_stop_string_ends_the_text_wherever_the_tokens_are_cut(
    tokenizer: Tokenizer, text: str, stop: tuple[str, ...]
) -> None:
    detokenizer = Detokenizer(tokenizer, stop)
    pieces = stream(detokenizer, tokenizer.encode(text, add_special_tokens=False))
    assert ("".join(pieces), detokenizer.stopped) == cut_at_first_stop(text, stop)


@given(text=small_texts, stop=stops)
def test_no_more_is_held_back_than_could_become_a_stop_string(
    text: str, stop: tuple[str, ...]
) -> None:
    tokenizer = tiny.byte_level()
    detokenizer = Detokenizer(tokenizer, stop)
    sent, received = "", b""
    for token_id in tokenizer.encode(text, add_special_tokens=False):
        sent += detokenizer.push(token_id)
        received += tokenizer.token_bytes(token_id)
        held = received.decode(errors="ignore")[len(sent) :]
        is_start_of_stop = any(word.startswith(held) for word in stop)
        assert detokenizer.stopped or not held or is_start_of_stop


@pytest.mark.parametrize("tokenizer", KEEP_SPACES)
@given(prompt=st.text("a b", min_size=1, max_size=6), text=st.text("a b好", max_size=8))
def test_text_after_a_prompt_keeps_its_leading_space(
    tokenizer: Tokenizer, prompt: str, text: str
) -> None:
    prefix_ids = tokenizer.encode(prompt, add_special_tokens=False)
    whole = tokenizer.decode(prefix_ids, skip_special_tokens=True)
    ids = tokenizer.encode(text, add_special_tokens=False)
    pieces = stream(Detokenizer(tokenizer, (), prefix_ids), ids)
    expected = tokenizer.decode([*prefix_ids, *ids], skip_special_tokens=True)
    assert whole + "".join(pieces) == expected


def test_a_character_the_prompt_cut_is_completed() -> None:
    tokenizer = tiny.byte_level()
    first, *rest = _byte_ids("😀")
    assert stream(Detokenizer(tokenizer, (), [first]), rest)[-2] == "😀"


def _byte_ids(text: str) -> list[int]:
    tokenizer = tiny.byte_level()
    single = {tokenizer.token_bytes(i): i for i in range(tokenizer.vocab_size)}
    return [single[bytes([byte])] for byte in text.encode()]


def test_an_emoji_in_four_tokens_comes_out_whole_with_the_fourth() -> None:
    assert stream(Detokenizer(tiny.byte_level()), _byte_ids("😀!")) == ["", "", "", "😀", "!", ""]


def test_half_a_character_at_the_end_becomes_one_replacement_character() -> None:
    assert stream(Detokenizer(tiny.byte_level()), _byte_ids("😀")[:3]) == ["", "", "", "\ufffd"]


def test_half_a_stop_string_at_the_end_is_text() -> None:
    detokenizer = Detokenizer(tiny.byte_level(), ("</s",))
    assert stream(detokenizer, _byte_ids("a</")) == ["a", "", "", "</"]
    assert detokenizer.stopped is None


def test_nothing_follows_a_stop_string() -> None:
    detokenizer = Detokenizer(tiny.byte_level(), ("b",))
    assert stream(detokenizer, _byte_ids("abc")) == ["a", "", "", ""]
    assert detokenizer.stopped == "b"


def test_special_tokens_are_left_out_unless_they_were_made_visible() -> None:
    tokenizer = tiny.byte_level()
    ids = tokenizer.encode("<|im_start|>a<|im_end|>", add_special_tokens=False)
    assert "".join(stream(Detokenizer(tokenizer), ids)) == "a"
    visible_ids = frozenset({ids[-1]})
    shown = stream(Detokenizer(tokenizer, visible_ids=visible_ids), ids)
    assert "".join(shown) == "a<|im_end|>"
