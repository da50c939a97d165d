"""The files that ship are small, complete and standard, and the model predicts held-out text."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from itertools import islice
from typing import Any

import pytest
import torch
from safetensors import safe_open
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from pebble.conversation import render, say
from pebble.corpus import KINDS, documents
from pebble.export import EMBEDDED_DIRECTORY
from pebble.held_out import held_out_losses, perplexity
from pebble.llama import Llama, num_parameters

# A few percent above what the shipped weights measure; a broken model is far beyond.
PERPLEXITY_BOUNDS = {
    "story": 1.75,
    "chat": 2.25,
    "knowledge": 2.2,
    "arithmetic": 2.35,
    "json": 2.2,
    "tools": 1.7,
}
UNSEEN_SEED = 77_000_077


def test_it_has_at_most_eight_million_parameters(model: Llama) -> None:
    assert 1_000_000 < num_parameters(model) <= 8_000_000


def test_its_directory_is_at_most_sixteen_megabytes_of_plain_files() -> None:
    files = [path for path in EMBEDDED_DIRECTORY.iterdir() if path.is_file()]
    assert {path.name for path in files} >= {
        "README.md",
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert sum(path.stat().st_size for path in files) <= 16_000_000


def test_its_weights_are_bf16_and_tied() -> None:
    with safe_open(EMBEDDED_DIRECTORY / "model.safetensors", framework="pt") as weights:
        names = set(weights.keys())
        assert {weights.get_tensor(name).dtype for name in names} == {torch.bfloat16}
    assert "model.layers.0.self_attn.q_proj.weight" in names
    assert "lm_head.weight" not in names


def test_its_context_is_long_enough(model: Llama) -> None:
    assert model.shape.max_position_embeddings >= 1024


@pytest.fixture(scope="module")
def losses(model: Llama, tokenizer: Tokenizer) -> Mapping[str, float]:
    return held_out_losses(model, tokenizer, islice(documents(UNSEEN_SEED), 400))


@pytest.mark.parametrize("kind", KINDS)
def test_it_predicts_text_it_has_not_seen(losses: Mapping[str, float], kind: str) -> None:
    assert perplexity(losses[kind]) < PERPLEXITY_BOUNDS[kind]


def test_it_still_predicts_at_the_end_of_its_context(model: Llama, tokenizer: Tokenizer) -> None:
    stories = "".join(
        document.text
        for document in islice(documents(UNSEEN_SEED), 200)
        if document.kind == "story"
    )
    ids = torch.tensor([tokenizer.encode(stories, add_special_tokens=False).ids[:2048]])
    with torch.no_grad():
        losses = torch.nn.functional.cross_entropy(
            model(ids[:, :-1])[0], ids[0, 1:], reduction="none"
        )
    assert losses[-500:].mean() < losses[100:600].mean() + 0.25


def test_transformers_loads_it_without_a_warning_and_computes_the_same(model: Llama) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        theirs = AutoModelForCausalLM.from_pretrained(EMBEDDED_DIRECTORY, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(EMBEDDED_DIRECTORY)
    ids = tokenizer("Once upon a time there was a fox.", return_tensors="pt").input_ids
    with torch.no_grad():
        assert torch.allclose(theirs(ids).logits, model(ids), atol=1e-3)


def test_transformers_reads_text_as_we_do(tokenizer: Tokenizer) -> None:
    theirs = AutoTokenizer.from_pretrained(EMBEDDED_DIRECTORY)
    text = 'Zoe has 12 eggs. <tool_call>{"name": "add"}</tool_call>'
    assert theirs(text).input_ids == tokenizer.encode(text).ids
    assert theirs.decode(tokenizer.encode("a , b").ids, skip_special_tokens=True) == "a , b"
    assert (theirs.bos_token, theirs.eos_token, theirs.pad_token) == (
        "<|begin|>",
        "<|end|>",
        "<|pad|>",
    )


def test_transformers_renders_the_chat_template_as_we_do() -> None:
    theirs = AutoTokenizer.from_pretrained(EMBEDDED_DIRECTORY)
    conversation = say("Hello", "Hi!", "Who are you?", system="Be kind.")
    messages: list[Any] = list(conversation.messages)
    text = theirs.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text == render(conversation, is_open=True)


def test_the_card_states_what_the_files_hold(model: Llama) -> None:
    card = (EMBEDDED_DIRECTORY / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\nlicense: mit\n")
    assert f"{num_parameters(model)} parameters" in card
    assert all(f"| {kind} | " in card for kind in KINDS)


def test_generation_stops_at_the_end_token(tokenizer: Tokenizer) -> None:
    generation = json.loads(
        (EMBEDDED_DIRECTORY / "generation_config.json").read_text(encoding="utf-8")
    )
    assert generation["eos_token_id"] == tokenizer.token_to_id("<|end|>")
    assert generation["bos_token_id"] == tokenizer.token_to_id("<|begin|>")
