"""The native runner over its block cache: chunks, mixed batches, windows, pooling, reuse."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, MistralConfig

from appliance.engine.sequence import Batch, Chunk, LogitRows, Sequence
from tests.engine.runner_harness import (
    BLOCK_SIZE,
    VOCAB_SIZE,
    Sequences,
    largest_difference,
    random_tokens,
    run_chunks,
    save_model,
    torch_runner,
)

if TYPE_CHECKING:
    from pathlib import Path

    from appliance.engine.sequence import FloatArray
    from appliance.engine.torch.runner import TorchRunner

TOLERANCE = 1e-4
WINDOW = 2 * BLOCK_SIZE + 3
SIZES: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 64,
    "intermediate_size": 112,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.15,
}


@pytest.fixture(scope="module")
def llama_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("llama")
    save_model(LlamaConfig(**SIZES), path)
    return path


@pytest.fixture(scope="module")
def window_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("window")
    save_model(MistralConfig(**SIZES, sliding_window=WINDOW), path)
    return path


@pytest.fixture(params=["llama_path", "window_path"])
def path(request: pytest.FixtureRequest) -> Path:
    found: Path = request.getfixturevalue(request.param)
    return found


def prefill(runner: TorchRunner, sequence: Sequence, length: int) -> None:
    runner.forward(Batch((Chunk(sequence, 0, length, LogitRows.NONE),)))


def last_logits(runner: TorchRunner, batch: Batch) -> list[FloatArray]:
    logits = [output.logits for output in runner.forward(batch)]
    return [rows for rows in logits if rows is not None]


def test_a_mixed_batch_gives_each_chunk_what_it_gets_alone(path: Path) -> None:
    runner, sequences = torch_runner(path), Sequences()
    prompts = [random_tokens(length, seed=length) for length in (3, 9, 17, 33, 34, 60, 61, 90)]
    alone = [run_chunks(runner, sequences.make(prompt), [len(prompt)]) for prompt in prompts]
    chunks = []
    for index, prompt in enumerate(prompts):
        # Every third is prefilled from its start, every third from its middle, the rest decode.
        start = (0, len(prompt) // 2, len(prompt) - 1)[index % 3]
        sequence = sequences.make(prompt)
        if start:
            prefill(runner, sequence, start)
        chunks.append(Chunk(sequence, start, len(prompt) - start, LogitRows.LAST))
    for logits, expected in zip(last_logits(runner, Batch(tuple(chunks))), alone, strict=True):
        assert largest_difference(logits, expected[-1:]) < TOLERANCE


def test_many_sequences_that_decode_together_get_what_they_get_alone(path: Path) -> None:
    runner, sequences = torch_runner(path), Sequences()
    prompts = [random_tokens(length, seed=length) for length in (2, 8, 9, 16, 17, 18, 40, 41, 100)]
    alone = [run_chunks(runner, sequences.make(prompt), [len(prompt)]) for prompt in prompts]
    together = [sequences.make(prompt) for prompt in prompts]
    for sequence in together:
        prefill(runner, sequence, len(sequence.token_ids) - 1)
    batch = Batch(tuple(Chunk(s, len(s.token_ids) - 1, 1, LogitRows.LAST) for s in together))
    for logits, expected in zip(last_logits(runner, batch), alone, strict=True):
        assert largest_difference(logits, expected[-1:]) < TOLERANCE


@pytest.mark.parametrize("block_size", [1, 4, 16])
def test_the_block_size_does_not_change_the_logits(block_size: int, path: Path) -> None:
    token_ids = random_tokens(70)
    expected = run_chunks(torch_runner(path), Sequences().make(token_ids), [70])
    sequence = Sequences(block_size=block_size).make(token_ids)
    runner = torch_runner(path, block_size=block_size)
    logits = run_chunks(runner, sequence, [11, 1, 30, 1, 1, 26])
    assert largest_difference(logits, expected) < TOLERANCE


def test_tokens_beyond_the_window_are_not_seen(tmp_path: Path) -> None:
    """With one layer, a token depends on the window alone: change what lies before it."""
    one_layer = {**SIZES, "num_hidden_layers": 1}
    save_model(MistralConfig(**one_layer, sliding_window=WINDOW), tmp_path)
    runner, sequences = torch_runner(tmp_path), Sequences()
    token_ids = random_tokens(60)
    first_seen = len(token_ids) - WINDOW
    unseen = [*random_tokens(first_seen, seed=9), *token_ids[first_seen:]]
    seen = [*random_tokens(first_seen + 1, seed=9), *token_ids[first_seen + 1 :]]
    assert token_ids[first_seen] != seen[first_seen]
    last, same, other = (
        run_chunks(runner, sequences.make(ids), [59, 1])[-1:] for ids in (token_ids, unseen, seen)
    )
    assert largest_difference(last, same) < TOLERANCE
    assert largest_difference(last, other) > TOLERANCE


def test_sequences_share_the_blocks_of_a_prefix(path: Path) -> None:
    runner, sequences = torch_runner(path), Sequences()
    prefix = random_tokens(3 * BLOCK_SIZE)
    first = sequences.make(prefix + random_tokens(5, seed=1))
    run_chunks(runner, first, [len(first.token_ids)])
    second = sequences.make(prefix + random_tokens(20, seed=2))
    expected = run_chunks(runner, second, [len(second.token_ids)])[len(prefix) :]
    second.block_table[:3] = first.block_table[:3]
    logits = run_chunks(runner, second, [20], start=len(prefix))
    assert largest_difference(logits, expected) < TOLERANCE


def test_rows_that_nobody_asks_for_are_not_returned(llama_path: Path) -> None:
    runner, sequence = torch_runner(llama_path), Sequences().make(random_tokens(12))
    everything = Chunk(sequence, 0, 12, LogitRows.ALL)
    last = Chunk(sequence, 0, 12, LogitRows.LAST)
    nothing = Chunk(sequence, 0, 12, LogitRows.NONE)
    (all_rows,), (last_row,), (no_rows,) = (
        runner.forward(Batch((chunk,))) for chunk in (everything, last, nothing)
    )
    assert all_rows.logits is not None
    assert last_row.logits is not None
    assert all_rows.logits.shape == (12, VOCAB_SIZE)
    assert all_rows.logits.dtype == np.float32
    assert largest_difference(last_row.logits, all_rows.logits[-1:]) < TOLERANCE
    assert no_rows.logits is None
    assert no_rows.hidden_sum is None


def test_logits_can_be_masked_in_place_without_touching_other_sequences(llama_path: Path) -> None:
    runner, sequences = torch_runner(llama_path), Sequences()
    chunks = [Chunk(sequences.make(random_tokens(4)), 0, 4, LogitRows.LAST) for _ in range(2)]
    first, second = last_logits(runner, Batch(tuple(chunks)))
    first[:] = -np.inf
    assert np.isfinite(second).all()


def test_a_pooled_sequence_gets_the_sum_of_its_final_hidden_states(llama_path: Path) -> None:
    runner, sequences = torch_runner(llama_path), Sequences()
    sequence = sequences.make(random_tokens(40), is_pooled=True)
    (whole,) = runner.forward(Batch((Chunk(sequence, 0, 40, LogitRows.NONE),)))
    (first,) = runner.forward(Batch((Chunk(sequence, 0, 23, LogitRows.NONE),)))
    (second,) = runner.forward(Batch((Chunk(sequence, 23, 17, LogitRows.NONE),)))
    assert whole.logits is None
    assert whole.hidden_sum is not None
    assert first.hidden_sum is not None
    assert second.hidden_sum is not None
    assert whole.hidden_sum.shape == (64,)
    np.testing.assert_allclose(first.hidden_sum + second.hidden_sum, whole.hidden_sum, atol=1e-3)


def test_what_an_earlier_sequence_left_in_a_block_never_reaches_a_later_one(path: Path) -> None:
    runner, sequences = torch_runner(path), Sequences()
    prompts = [random_tokens(length, seed=length) for length in (10, 30)]
    expected = [run_chunks(runner, sequences.make(prompt), [len(prompt)]) for prompt in prompts]
    with torch.inference_mode():
        runner._cache.values.fill_(torch.nan)
    again = [sequences.make(prompt) for prompt in prompts]
    for sequence in again:
        prefill(runner, sequence, len(sequence.token_ids) - 1)
    batch = Batch(tuple(Chunk(s, len(s.token_ids) - 1, 1, LogitRows.LAST) for s in again))
    for logits, rows in zip(last_logits(runner, batch), expected, strict=True):
        assert largest_difference(logits, rows[-1:]) < TOLERANCE


def test_bfloat16_stays_close_to_float32(path: Path) -> None:
    token_ids = random_tokens(50)
    exact = run_chunks(torch_runner(path), Sequences().make(token_ids), [30] + [1] * 20)
    runner = torch_runner(path, dtype="bfloat16")
    rounded = run_chunks(runner, Sequences().make(token_ids), [30] + [1] * 20)
    assert runner.info.dtype == "bfloat16"
    assert np.corrcoef(exact.ravel(), rounded.ravel())[0, 1] > 0.999


def test_the_runner_says_what_it_is(llama_path: Path) -> None:
    info = torch_runner(llama_path, dtype="bfloat16").info
    assert (info.name, info.device) == ("torch", "cpu")
    assert info.weight_bytes == 2 * info.num_parameters


def test_releasing_an_unknown_sequence_is_fine(llama_path: Path) -> None:
    torch_runner(llama_path).release(12345)
