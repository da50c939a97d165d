"""Tiles of one shape: what fills them up, what is left in the cache, and when bits are claimed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from appliance.engine.runners.self_check import find_difference
from appliance.engine.sequence import Batch, Chunk, LogitRows
from appliance.engine.torch.fixed_attention import FixedShape
from tests.engine.law_harness import lawful, write_models
from tests.engine.runner_harness import Sequences, random_tokens, run_chunks, torch_runner

if TYPE_CHECKING:
    from appliance.engine.sequence import FloatArray
    from appliance.engine.torch.runner import TorchRunner

SHAPE = FixedShape(tile_rows=16, group_rows=4, span_tokens=32)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(params=["plain", "window"])
def path(request: pytest.FixtureRequest, models: dict[str, Path]) -> Path:
    return models[request.param]


def fixed_runner(path: Path) -> TorchRunner:
    return lawful(torch_runner(path, fixed_shape=SHAPE))


def run_alone(runner: TorchRunner, sequences: Sequences, token_ids: list[int]) -> FloatArray:
    return run_chunks(runner, sequences.make(token_ids), [len(token_ids)])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_products_of_one_row_keep_the_law_on_every_machine(path: Path, dtype: str) -> None:
    info = torch_runner(path, dtype=dtype, fixed_shape=FixedShape(1, 1, 32)).info
    assert (info.has_fixed_arithmetic, info.note) == (True, None)


def test_torch_s_own_shapes_are_found_out_and_claim_nothing(path: Path) -> None:
    free = torch_runner(path)
    assert not free.info.has_fixed_arithmetic
    assert find_difference(free, 80) is not None


def test_a_difference_takes_the_claim_back_and_is_told(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("appliance.engine.torch.runner.find_difference", lambda *_: "they differ")
    info = torch_runner(path, fixed_shape=SHAPE).info
    assert (info.has_fixed_arithmetic, info.note) == (False, "they differ")


@pytest.mark.parametrize(
    "shape", [FixedShape(1, 1, 8), FixedShape(7, 7, 24), FixedShape(64, 8, 64)]
)
def test_any_shape_computes_the_same_up_to_rounding(shape: FixedShape, path: Path) -> None:
    token_ids = random_tokens(60)
    expected = run_alone(torch_runner(path), Sequences(), token_ids)
    runner = torch_runner(path, fixed_shape=shape)
    np.testing.assert_allclose(run_alone(runner, Sequences(), token_ids), expected, atol=1e-4)


@pytest.mark.parametrize("shape", [FixedShape(16, 3, 32), FixedShape(16, 4, 33)])
def test_a_shape_that_leaves_a_rest_is_refused(shape: FixedShape, models: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match="leaves a rest"):
        torch_runner(models["plain"], fixed_shape=shape)


def test_what_an_earlier_sequence_left_in_a_block_never_reaches_a_later_one(path: Path) -> None:
    runner, sequences = fixed_runner(path), Sequences()
    prompts = [random_tokens(length, seed=length) for length in (10, 30, 61)]
    expected = [run_alone(runner, sequences, prompt) for prompt in prompts]
    with torch.inference_mode():
        runner._cache.values.fill_(torch.nan)
    chunks = [Chunk(sequences.make(prompt), 0, len(prompt), LogitRows.ALL) for prompt in prompts]
    for output, rows in zip(runner.forward(Batch(tuple(chunks))), expected, strict=True):
        assert output.logits is not None
        assert output.logits.tobytes() == rows.tobytes()


def test_rows_that_fill_a_tile_up_write_to_no_sequence_s_block(path: Path) -> None:
    runner, sequences = fixed_runner(path), Sequences()
    sequence = sequences.make(random_tokens(5))
    with torch.inference_mode():
        runner._cache.values.zero_()
    run_chunks(runner, sequence, [5])
    written = runner._cache.values.ne(0).any(dim=(0, 1, 3, 4, 5)).nonzero().flatten().tolist()
    assert set(written) == {*sequence.block_table, runner.info.num_blocks}


def test_logits_are_given_for_the_rows_asked_for_over_several_tiles(path: Path) -> None:
    runner, sequence = fixed_runner(path), Sequences().make(random_tokens(50))
    everything, last, nothing = (
        runner.forward(Batch((Chunk(sequence, 0, 50, rows),)))[0].logits
        for rows in (LogitRows.ALL, LogitRows.LAST, LogitRows.NONE)
    )
    assert everything is not None
    assert last is not None
    assert everything.shape == (50, runner.info.vocab_size)
    assert last.tobytes() == everything[-1:].tobytes()
    assert nothing is None


def test_a_sequence_may_fill_the_whole_context(path: Path) -> None:
    runner = fixed_runner(path)
    length = runner.info.max_context_tokens
    whole = run_alone(runner, Sequences(), random_tokens(length))
    pieces = run_chunks(
        runner, Sequences(seed=6).make(random_tokens(length)), [length - 40, 3, 1, 36]
    )
    assert whole.tobytes() == pieces.tobytes()


def test_on_a_cpu_nothing_is_captured(path: Path) -> None:
    runner = fixed_runner(path)
    assert runner._tiled is not None
    assert runner._tiled.graphs.num_replays == 0
