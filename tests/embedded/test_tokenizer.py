"""The tokenizer loses no byte, takes digits one by one and knows its special tokens."""

from __future__ import annotations

import json

import pytest
from tokenizers import Tokenizer

from pebble.export import EMBEDDED_DIRECTORY
from pebble.tokenizer import MAX_VOCAB_SIZE, SPECIAL_TOKENS, train_tokenizer


@pytest.mark.parametrize(
    "text",
    ["Once upon a time", " two  spaces ", "Zürich 東京 🙂", "a\n\tb\r\n", "\x00\x7f", "x" * 500],
)
def test_text_comes_back_as_it_went_in(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    assert tokenizer.decode(ids, skip_special_tokens=False) == text


def test_every_digit_is_a_token_of_its_own(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("2048", add_special_tokens=False).tokens == ["2", "0", "4", "8"]


def test_special_tokens_are_single_and_come_first(tokenizer: Tokenizer) -> None:
    for token_id, token in enumerate(SPECIAL_TOKENS):
        assert tokenizer.encode(token, add_special_tokens=False).ids == [token_id]


def test_a_bare_prompt_starts_with_the_begin_token(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("Once").tokens[0] == "<|begin|>"


def test_vocabulary_and_config_agree(tokenizer: Tokenizer) -> None:
    config = json.loads((EMBEDDED_DIRECTORY / "config.json").read_text(encoding="utf-8"))
    assert tokenizer.get_vocab_size() == config["vocab_size"] <= MAX_VOCAB_SIZE


def test_common_words_of_its_world_are_one_token(tokenizer: Tokenizer) -> None:
    for word in (" time", " little", " friend", " upon", " answer"):
        assert len(tokenizer.encode(word, add_special_tokens=False).ids) == 1


def test_training_again_gives_the_same_tokenizer() -> None:
    texts = ["the fox and the owl", "the owl and 12 foxes"] * 20
    assert train_tokenizer(texts).to_str() == train_tokenizer(texts).to_str()
