"""A small run learns, stops and goes on where it stopped, and leaves a whole model directory."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer

from pebble.corpus import BEGIN, END
from pebble.llama import IGNORED, Llama, LlamaShape, load_model
from pebble.packing import Packer, pack
from pebble.train import Corpus, Recipe, Trainer, saved_tokenizer, train

RECIPE = Recipe(
    seed=3,
    num_documents=300,
    num_held_out=30,
    tokens_per_step=256,
    row_length=64,
    long_row_length=128,
    long_share=0.5,
    warmup_steps=2,
    learning_rate=1e-2,
    steps=6,
)


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return Corpus(RECIPE)


@pytest.fixture
def trainer(corpus: Corpus) -> Trainer:
    return make_trainer(corpus, RECIPE)


def make_trainer(corpus: Corpus, recipe: Recipe) -> Trainer:
    shape = LlamaShape(
        corpus.tokenizer.get_vocab_size(),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
    )
    return Trainer(recipe, shape, corpus)


def weights_of(model: Llama) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def test_a_resumed_run_ends_with_the_very_weights_of_an_unbroken_one(
    trainer: Trainer, corpus: Corpus, tmp_path: Path
) -> None:
    unbroken = list(trainer.run())
    first, second = make_trainer(corpus, RECIPE), make_trainer(corpus, RECIPE)
    broken = [first.step() for _ in range(3)]
    first.save(tmp_path / "checkpoint.pt")
    second.load(tmp_path / "checkpoint.pt")
    broken += second.run()
    assert broken == unbroken
    assert second.progress.tokens == trainer.progress.tokens
    assert torch.equal(weights_of(second.model), weights_of(trainer.model))


def test_another_seed_gives_other_weights(corpus: Corpus) -> None:
    one, two = make_trainer(corpus, RECIPE), make_trainer(corpus, replace(RECIPE, seed=4))
    assert not torch.equal(weights_of(one.model), weights_of(two.model))


def test_training_lowers_the_held_out_loss(corpus: Corpus) -> None:
    trainer = make_trainer(corpus, replace(RECIPE, steps=25))
    before = trainer.held_out_losses(30)["all"]
    list(trainer.run())
    assert trainer.held_out_losses(30)["all"] < before - 0.6


def test_the_learning_rate_warms_up_and_runs_out(trainer: Trainer) -> None:
    rates = []
    while trainer.fraction_done < 1.0:
        rates.append(trainer.learning_rate())
        trainer.step()
    assert rates[0] < rates[1] > rates[2] > rates[-1]
    assert trainer.learning_rate() == 0.0


def test_a_finished_run_leaves_a_directory_that_loads(
    trainer: Trainer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint, output = tmp_path / "checkpoint.pt", tmp_path / "model"
    train(trainer, checkpoint, output, report_every=2, save_every_s=1000)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines] == ["step 2", "step 4", "step 6"]
    assert all("held-out" in line and "ETA" in line for line in lines)
    assert saved_tokenizer(checkpoint).to_str() == trainer.corpus.tokenizer.to_str()
    shipped = load_model(output)
    assert torch.allclose(weights_of(shipped), weights_of(trainer.model), atol=0.01)
    assert (
        json.loads((output / "config.json").read_text())["vocab_size"] == shipped.shape.vocab_size
    )
    card = (output / "README.md").read_text()
    assert f"{trainer.progress.step} steps" in card


def test_every_row_starts_where_a_document_starts(tokenizer: Tokenizer) -> None:
    texts = [f"{BEGIN}{'the fox ' * count}{END}" for count in range(1, 40)]
    tokens, _ = pack(tokenizer, texts, row_length=64)
    assert set(tokens[:, 0].tolist()) == {tokenizer.token_to_id(BEGIN)}


def test_no_document_is_lost_in_packing(tokenizer: Tokenizer) -> None:
    texts = [f"{BEGIN}{'the fox ' * count}{END}" for count in range(1, 20)] * 10
    tokens, _ = pack(tokenizer, texts, row_length=64)
    assert (tokens == tokenizer.token_to_id(END)).sum() == len(texts)


def test_what_the_model_only_reads_gets_no_loss(tokenizer: Tokenizer) -> None:
    packer = Packer(tokenizer, 32)
    text = f"{BEGIN}<|system|>Be kind.{END}<|user|>Hi{END}<|tool|>7{END}"
    packer.add(tokenizer.encode(text, add_special_tokens=False).ids)
    _, targets = packer.rows()
    kept = [token for token in targets[0].tolist() if token != IGNORED]
    assert tokenizer.decode(kept, skip_special_tokens=False) == f"<|user|>Hi{END}"


def test_a_document_does_not_predict_the_next_one(tokenizer: Tokenizer) -> None:
    packer = Packer(tokenizer, 16)
    for _ in range(2):
        packer.add(tokenizer.encode(f"{BEGIN}fox{END}", add_special_tokens=False).ids)
    tokens, targets = packer.rows()
    ends = [
        at for at, token in enumerate(tokens[0].tolist()) if token == tokenizer.token_to_id(END)
    ]
    assert [targets[0][at] for at in ends] == [IGNORED, IGNORED]
