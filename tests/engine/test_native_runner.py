"""The native runner over its block cache: mixed batches, windows, prefixes, pooling, reuse."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import numpy as np
import pytest

from appliance.engine.sequence import Batch, Chunk, LogitRows, Sequence
from tests.engine.native_harness import BLOCK_SIZE, QUANTIZATIONS, native_runner
from tests.engine.runner_harness import Sequences, random_tokens, run_chunks
from tests.model_factory import write_model

if TYPE_CHECKING:
    from pathlib import Path

    from appliance.engine.native.runner import NativeRunner

WINDOW = 2 * BLOCK_SIZE + 3
LENGTHS = (1, 3, 15, 16, 17, 33, 34, 60, 61, 90)


@pytest.fixture(scope="module")
def llama_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("llama"), dtype="BF16")


@pytest.fixture(scope="module")
def window_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("window")
    return write_model(directory, model_type="mistral", dtype="BF16", sliding_window=WINDOW)


@pytest.fixture(params=["llama_path", "window_path"])
def path(request: pytest.FixtureRequest) -> Path:
    found: Path = request.getfixturevalue(request.param)
    return found


def make_sequences() -> Sequences:
    return Sequences(block_size=BLOCK_SIZE)


def prefill(runner: NativeRunner, sequence: Sequence, length: int) -> None:
    runner.forward(Batch((Chunk(sequence, 0, length, LogitRows.NONE),)))


def logits_bytes(runner: NativeRunner, batch: Batch) -> list[bytes]:
    logits = [output.logits for output in runner.forward(batch)]
    return [rows.tobytes() for rows in logits if rows is not None]


@pytest.mark.parametrize("num_threads", [1, 2])
@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_a_mixed_batch_gives_each_chunk_the_bits_it_gets_alone(
    quantization: str, num_threads: int, path: Path
) -> None:
    sequences = make_sequences()
    prompts = [random_tokens(length, seed=length) for length in LENGTHS]
    reference = native_runner(path, quantization=quantization)
    alone = [run_chunks(reference, sequences.make(prompt), [len(prompt)]) for prompt in prompts]
    runner = native_runner(path, quantization=quantization, num_threads=num_threads)
    chunks = []
    for index, prompt in enumerate(prompts):
        # Every third is prefilled from its start, every third from its middle, the rest decode.
        start = (0, len(prompt) // 2, len(prompt) - 1)[index % 3]
        sequence = sequences.make(prompt)
        if start:
            prefill(runner, sequence, start)
        chunks.append(Chunk(sequence, start, len(prompt) - start, LogitRows.LAST))
    together = logits_bytes(runner, Batch(tuple(chunks)))
    assert together == [rows[-1:].tobytes() for rows in alone]


def test_any_cut_into_chunks_gives_the_same_bits(path: Path) -> None:
    runner, sequences, rng = native_runner(path, num_threads=2), make_sequences(), random.Random(1)
    token_ids = random_tokens(100)
    whole = run_chunks(runner, sequences.make(token_ids), [100])
    for _ in range(10):
        cuts = sorted(rng.sample(range(1, 100), rng.randrange(1, 12)))
        lengths = np.diff([0, *cuts, 100]).tolist()
        sequence = sequences.make(token_ids)
        assert run_chunks(runner, sequence, lengths).tobytes() == whole.tobytes()
        sequences.free(sequence)


@pytest.mark.parametrize("block_size", [32, 64])
def test_the_block_size_does_not_change_a_bit(block_size: int, path: Path) -> None:
    token_ids = random_tokens(70)
    expected = run_chunks(native_runner(path), make_sequences().make(token_ids), [70])
    sequence = Sequences(block_size=block_size).make(token_ids)
    runner = native_runner(path, block_size=block_size)
    assert run_chunks(runner, sequence, [11, 1, 30, 1, 1, 26]).tobytes() == expected.tobytes()


def test_a_block_size_that_splits_a_key_tile_is_refused(llama_path: Path) -> None:
    with pytest.raises(ValueError, match="multiples of 16"):
        native_runner(llama_path, block_size=8)


def test_tokens_beyond_the_window_are_not_seen(tmp_path: Path) -> None:
    """With one layer, a token depends on the window alone: change what lies before it."""
    write_model(tmp_path, model_type="mistral", sliding_window=WINDOW, num_hidden_layers=1)
    runner, sequences = native_runner(tmp_path), make_sequences()
    token_ids = random_tokens(60)
    first_seen = len(token_ids) - WINDOW
    unseen = [*random_tokens(first_seen, seed=9), *token_ids[first_seen:]]
    seen = [*random_tokens(first_seen + 1, seed=9), *token_ids[first_seen + 1 :]]
    last, same, other = (
        run_chunks(runner, sequences.make(ids), [59, 1])[-1:] for ids in (token_ids, unseen, seen)
    )
    assert last.tobytes() == same.tobytes()
    assert last.tobytes() != other.tobytes()


def test_sequences_share_the_blocks_of_a_prefix(path: Path) -> None:
    runner, sequences = native_runner(path), make_sequences()
    prefix = random_tokens(3 * BLOCK_SIZE)
    first = sequences.make(prefix + random_tokens(5, seed=1))
    run_chunks(runner, first, [len(first.token_ids)])
    second = sequences.make(prefix + random_tokens(20, seed=2))
    expected = run_chunks(runner, second, [len(second.token_ids)])[len(prefix) :]
    second.block_table[:3] = first.block_table[:3]
    logits = run_chunks(runner, second, [20], start=len(prefix))
    assert logits.tobytes() == expected.tobytes()


def test_rows_that_nobody_asks_for_are_not_returned(llama_path: Path) -> None:
    runner, sequence = native_runner(llama_path), make_sequences().make(random_tokens(12))
    everything = Chunk(sequence, 0, 12, LogitRows.ALL)
    (all_rows,), (last_row,), (no_rows,) = (
        runner.forward(Batch((everything._replace(rows=rows),)))
        for rows in (LogitRows.ALL, LogitRows.LAST, LogitRows.NONE)
    )
    assert all_rows.logits is not None
    assert last_row.logits is not None
    assert all_rows.logits.shape == (12, runner.info.vocab_size)
    assert all_rows.logits.dtype == np.float32
    assert last_row.logits.tobytes() == all_rows.logits[-1:].tobytes()
    assert no_rows.logits is None
    assert no_rows.hidden_sum is None


def test_logits_can_be_masked_in_place_without_touching_other_sequences(llama_path: Path) -> None:
    runner, sequences = native_runner(llama_path), make_sequences()
    chunks = [Chunk(sequences.make(random_tokens(4)), 0, 4, LogitRows.LAST) for _ in range(2)]
    first, second = (output.logits for output in runner.forward(Batch(tuple(chunks))))
    assert first is not None
    assert second is not None
    first[:] = -np.inf
    assert np.isfinite(second).all()


def test_the_sum_of_a_pooled_sequence_does_not_depend_on_its_chunks(llama_path: Path) -> None:
    runner, sequences = native_runner(llama_path, num_threads=2), make_sequences()
    sequence = sequences.make(random_tokens(40), is_pooled=True)
    other = sequences.make(random_tokens(9, seed=1), is_pooled=True)

    def hidden_sum(start: int, length: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        chunks = (
            Chunk(other, 0, 9, LogitRows.NONE),
            Chunk(sequence, start, length, LogitRows.NONE),
        )
        _, output = runner.forward(Batch(chunks))
        assert output.logits is None
        assert output.hidden_sum is not None
        return output.hidden_sum.astype(np.float64)

    whole = hidden_sum(0, 40)
    assert whole.shape == (32,)
    parts = hidden_sum(0, 23) + hidden_sum(23, 1) + hidden_sum(24, 16)
    assert parts.tobytes() == whole.tobytes()


@pytest.mark.parametrize("num_threads", [1, 2])
def test_what_an_earlier_sequence_left_in_a_block_never_reaches_a_later_one(
    num_threads: int, path: Path
) -> None:
    runner, sequences = native_runner(path, num_threads=num_threads), make_sequences()
    prompts = [random_tokens(length, seed=length) for length in (10, 30, 50)]
    expected = [run_chunks(runner, sequences.make(prompt), [len(prompt)]) for prompt in prompts]
    runner._cache[:] = b"\xff" * len(runner._cache)  # every value a NaN
    again = [sequences.make(prompt) for prompt in prompts]
    for sequence in again:
        prefill(runner, sequence, len(sequence.token_ids) - 1)
    batch = Batch(tuple(Chunk(s, len(s.token_ids) - 1, 1, LogitRows.LAST) for s in again))
    assert logits_bytes(runner, batch) == [rows[-1:].tobytes() for rows in expected]


def test_a_batch_that_would_reach_outside_memory_is_refused(llama_path: Path) -> None:
    runner, sequences = native_runner(llama_path), make_sequences()
    strange_token = sequences.make([1, 2, 5000])
    strange_block = sequences.make([1, 2, 3])
    strange_block.block_table[0] = 256
    missing_block = sequences.make([1, 2, 3])
    missing_block.block_table.clear()
    for sequence, reason in (
        (strange_token, "token id"),
        (strange_block, "block id"),
        (missing_block, "does not fit"),
    ):
        with pytest.raises(RuntimeError, match=reason):
            prefill(runner, sequence, 3)
    assert len(run_chunks(runner, sequences.make([1, 2, 3]), [3])) == 3


def test_the_runner_says_what_it_is(llama_path: Path) -> None:
    info = native_runner(llama_path, num_threads=2).info
    assert (info.name, info.device) == ("native", "cpu")
    assert (info.dtype, info.num_threads) == ("bfloat16", 2)
    assert native_runner(llama_path, quantization="int8").info.dtype == "int8"
    assert native_runner(llama_path, quantization="int4").info.dtype == "int4"


def test_releasing_an_unknown_sequence_is_fine(llama_path: Path) -> None:
    native_runner(llama_path).release(12345)
