"""The random checkpoints: the same bytes each time, and fit to be timed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from appliance.models.directory import open_model
from appliance.models.hashing import FileHasher
from bench import checkpoints
from bench.checkpoints import SHAPES, Checkpoint, Shape, open_checkpoint
from bench.load import make_prompts
from bench.participant import WORD_IDS

TINY = Shape(2000, 32, 64, 2, 4, 2)
SILENT = 3 + 256


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Checkpoint:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path))
    monkeypatch.setitem(checkpoints.SHAPES, "tiny", TINY)
    return open_checkpoint("tiny")


def test_it_is_a_model_that_the_server_opens(tiny: Checkpoint) -> None:
    model = open_model(tiny.path, name=None, hasher=FileHasher())
    assert model.native is not None
    assert model.num_parameters == tiny.num_parameters


def test_its_bytes_are_the_same_wherever_it_is_made(
    tiny: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "elsewhere"))
    again = open_checkpoint("tiny")
    assert again.path != tiny.path
    assert again.digest() == tiny.digest()


def test_it_is_made_once(tiny: Checkpoint) -> None:
    weights = tiny.path / "model.safetensors"
    written_ns = weights.stat().st_mtime_ns
    open_checkpoint("tiny")
    assert weights.stat().st_mtime_ns == written_ns


def test_a_prompt_has_as_many_tokens_as_words(tiny: Checkpoint) -> None:
    tokenizer = Tokenizer.from_file(str(tiny.path / "tokenizer.json"))
    ids = [tokenizer.encode(prompt).ids for prompt in make_prompts(20, 64, "seed")]
    assert {len(one) for one in ids} == {64}
    assert all(id_ in range(*WORD_IDS) for one in ids for id_ in one[1:])


def test_greedy_choice_never_takes_a_special_token_or_a_part_of_a_character(
    tiny: Checkpoint,
) -> None:
    content = (tiny.path / "model.safetensors").read_bytes()
    size = int.from_bytes(content[:8], "little")
    begin, end = json.loads(content[8 : 8 + size])["lm_head.weight"]["data_offsets"]
    raw = np.frombuffer(content[8 + size + begin : 8 + size + end], np.uint16)
    rows = raw.reshape(TINY.vocab_size, TINY.hidden_size)
    assert not rows[:SILENT].any()
    assert (rows[SILENT:] != 0).any(axis=1).all()


@pytest.mark.parametrize(("name", "millions"), [("S", 8.3), ("M", 124.7), ("L", 1100.0)])
def test_a_shape_has_the_size_that_it_is_known_by(name: str, millions: float) -> None:
    count = sum(int(np.prod(shape)) for shape in SHAPES[name].tensors().values())
    assert round(count / 1e6, 1) == millions


def test_a_token_reads_all_weights_but_the_embedding(tiny: Checkpoint) -> None:
    assert tiny.num_parameters - tiny.num_read_parameters == TINY.vocab_size * TINY.hidden_size
    assert tiny.num_bytes(16) == 2 * tiny.num_parameters
