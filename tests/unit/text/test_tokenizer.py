"""Tokenizers of both styles: exact round trips, exact bytes, nothing that blocks the event loop."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import normalizers

from appliance.errors import InvalidRequest, ModelRefused
from appliance.text.tokenizer import BOUNDARY, Tokenizer
from tests.unit.text import tiny_tokenizers as tiny

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters=BOUNDARY))
both = pytest.mark.parametrize("tokenizer", [tiny.byte_level(), tiny.sentencepiece()])


@both
@given(text=texts)
def test_text_survives_a_round_trip(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert tokenizer.decode(ids, skip_special_tokens=False) == text


@given(text=texts)
def test_the_bytes_of_the_tokens_are_the_bytes_of_the_text(text: str) -> None:
    tokenizer = tiny.byte_level()
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert b"".join(map(tokenizer.token_bytes, ids)) == text.encode()


@pytest.mark.parametrize("tokenizer", [tiny.byte_level(), tiny.metaspace(), tiny.wordpiece()])
@given(data=st.data(), skip=st.booleans())
def test_any_ids_decode_as_the_library_decodes_them(
    tokenizer: Tokenizer, data: st.DataObject, skip: bool
) -> None:
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1), max_size=30))
    expected = tokenizer._backend.decode(ids, skip_special_tokens=skip)
    assert tokenizer.decode(ids, skip_special_tokens=skip) == expected


@given(data=st.data())
def test_sentencepiece_ids_decode_as_the_library_decodes_them_unless_the_bytes_are_broken(
    data: st.DataObject,
) -> None:
    tokenizer = tiny.sentencepiece()
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1), max_size=30))
    expected = tokenizer._backend.decode(ids, skip_special_tokens=True)
    decoded = tokenizer.decode(ids, skip_special_tokens=True)
    assert decoded == expected or "\ufffd" in decoded


def test_a_broken_byte_leaves_the_character_before_it_alone() -> None:
    tokenizer = tiny.sentencepiece()
    ids = [3 + byte for byte in "好".encode()] + [3 + 0xFF]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "好\ufffd"


def test_control_tokens_in_text_are_recognised_and_skipped_on_request() -> None:
    tokenizer = tiny.byte_level()
    ids = tokenizer.encode("<|im_start|>hi<think>", add_special_tokens=False)
    assert ids[0] == tokenizer.token_id("<|im_start|>")
    assert tokenizer.decode(ids, skip_special_tokens=True) == "hi<think>"
    assert tokenizer.added_tokens["<|im_start|>"] is True
    assert tokenizer.added_tokens["<think>"] is False


@both
def test_a_boundary_keeps_a_control_token_from_being_recognised(tokenizer: Tokenizer) -> None:
    plain = tokenizer.encode(f"<{BOUNDARY}/s>", add_special_tokens=False)
    assert tokenizer.token_id("</s>") not in plain
    assert max(plain) < tokenizer.vocab_size
    assert tokenizer.decode(plain, skip_special_tokens=True).replace(" ", "") == "</s>"


def test_a_look_alike_does_not_become_a_control_token_by_normalisation() -> None:
    backend = tiny.byte_level_backend()
    backend.normalizer = normalizers.NFKC()
    backend.add_special_tokens([tokenizers.AddedToken("<eot>", normalized=True)])
    tokenizer = Tokenizer(backend)
    eot_id = tokenizer.token_id("<eot>")
    assert tokenizer.encode("<eot>", add_special_tokens=False) == [eot_id]
    assert eot_id not in tokenizer.encode("\uff1ceot\uff1e", add_special_tokens=False)


def test_the_boundary_is_no_part_of_the_vocabulary() -> None:
    tokenizer = tiny.byte_level()
    assert tokenizer.vocab_size == 400 + len(tiny.VISIBLE)
    assert BOUNDARY not in tokenizer.added_tokens
    assert tokenizer.token_bytes(tokenizer.vocab_size) == b""
    assert tokenizer.token_text(10**9) == ""


def test_text_that_is_no_unicode_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="surrogate"):
        tiny.byte_level().encode("a\ud800", add_special_tokens=False)


def test_count_is_the_number_of_ids() -> None:
    assert tiny.byte_level().count("hi", add_special_tokens=False) == 2


def test_a_truncating_tokenizer_file_does_not_truncate_prompts(tmp_path: Path) -> None:
    backend = tiny.byte_level_backend()
    backend.enable_truncation(4)
    backend.enable_padding(length=8)
    backend.save(str(tmp_path / "tokenizer.json"))
    tokenizer = Tokenizer.from_file(tmp_path / "tokenizer.json")
    ids = tokenizer.encode("Once upon a time there was", add_special_tokens=True)
    assert tokenizer.decode(ids, skip_special_tokens=False) == "Once upon a time there was"


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"model": 5}'])
def test_a_broken_tokenizer_file_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(content)
    with pytest.raises(ModelRefused, match="not a readable tokenizer"):
        Tokenizer.from_file(path)


def test_encoding_a_large_text_lets_other_threads_run() -> None:
    tokenizer = tiny.byte_level()
    text = "😀" * 100_000  # 400 KB
    thread = threading.Thread(
        target=tokenizer.encode, args=(text,), kwargs={"add_special_tokens": False}
    )
    longest_s, started = 0.0, time.perf_counter()
    thread.start()
    before = started
    while thread.is_alive():
        now = time.perf_counter()
        longest_s, before = max(longest_s, now - before), now
    assert longest_s < (time.perf_counter() - started) / 2
