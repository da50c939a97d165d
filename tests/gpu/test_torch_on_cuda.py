"""The torch runner on a CUDA device: the law in the product's own shapes, graphs, parity."""

from __future__ import annotations

import asyncio
import json
import time
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("torch", reason="torch is not installed")

from appliance.engine.sequence import Batch, Chunk, LogitRows
from appliance.engine.torch.fixed_attention import FixedShape
from appliance.engine.torch.runner import TorchRunner
from tests.engine.engine_setup import Request
from tests.engine.law_harness import (
    Setup,
    answer_all,
    request_strategy,
    setup_strategy,
    write_models,
)
from tests.engine.runner_harness import (
    Sequences,
    load_reference,
    random_tokens,
    reference_logits,
    run_chunks,
    run_decode,
    torch_runner,
)
from tests.gpu import figures

pytestmark = pytest.mark.gpu

DTYPES = ["float32", "bfloat16"]
EMBEDDED = Path(str(resources.files("appliance") / "embedded"))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {**write_models(tmp_path_factory.mktemp("models")), "embedded": EMBEDDED}


@pytest.fixture(scope="module", params=DTYPES)
def embedded(request: pytest.FixtureRequest, device: str) -> TorchRunner:
    return torch_runner(
        EMBEDDED, device=device, dtype=request.param, block_size=16, fixed_shape=FixedShape()
    )


def test_the_law_is_seen_to_hold_within_seconds(device: str) -> None:
    started = time.monotonic()
    runner = torch_runner(EMBEDDED, device=device, block_size=16, fixed_shape=FixedShape())
    seconds = time.monotonic() - started
    assert (runner.info.has_fixed_arithmetic, runner.info.note) == (True, None)
    assert seconds < 30, "the libraries' first use included"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["plain", "odd, qk-norm", "window", "embedded"])
@settings(
    max_examples=6,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(setup=setup_strategy, requests=st.lists(request_strategy, min_size=1, max_size=8))
def test_no_schedule_changes_an_answer(
    name: str,
    dtype: str,
    device: str,
    models: dict[str, Path],
    setup: Setup,
    requests: list[Request],
) -> None:
    def make_runner(setup: Setup) -> TorchRunner:
        return torch_runner(
            models[name],
            device=device,
            dtype=dtype,
            block_size=setup.block_size,
            num_blocks=setup.num_blocks,
            fixed_shape=FixedShape(),
        )

    async def scenario() -> None:
        together = await answer_all(make_runner, setup, requests)
        used = make_runner(Setup())
        for request, answer in zip(requests, together, strict=True):
            assert [answer] == await answer_all(lambda _: used, Setup(), [request])

    asyncio.run(scenario())


def test_every_row_of_a_tile_gives_the_same_bits(embedded: TorchRunner) -> None:
    """As many alike as there are rows, and more."""
    sequences, prompt = Sequences(block_size=16), random_tokens(16, vocab_size=4096)
    chunks = [Chunk(sequences.make(prompt), 0, 16, LogitRows.LAST) for _ in range(9)]
    singles = [Chunk(sequences.make(prompt[:1]), 0, 1, LogitRows.LAST) for _ in range(70)]
    for batch in (chunks, singles):
        outputs = embedded.forward(Batch(tuple(batch)))
        assert len({None if o.logits is None else o.logits.tobytes() for o in outputs}) == 1


def test_decoding_replays_graphs_and_captures_none_anew(embedded: TorchRunner) -> None:
    assert embedded._tiled is not None
    sequence = Sequences(block_size=16).make(random_tokens(40, vocab_size=4096))
    run_chunks(embedded, sequence, [30, 1])
    graphs, passes = embedded._tiled.graphs, len(embedded._tiled._passes)
    before = graphs.num_replays
    run_chunks(embedded, sequence, [1] * 9, start=31)
    assert graphs.num_replays == before + 2 * 9  # of the layers, and of the output matrix
    assert len(embedded._tiled._passes) == passes


def test_what_is_replayed_has_the_bits_of_what_is_called(embedded: TorchRunner) -> None:
    assert embedded._tiled is not None
    sequences, tokens = Sequences(block_size=16), random_tokens(300, vocab_size=4096)
    replayed = run_decode(embedded, sequences.make(tokens), 290)
    before, embedded._tiled.max_graph_spans = embedded._tiled.max_graph_spans, 0
    called = run_decode(embedded, sequences.make(tokens), 290)
    embedded._tiled.max_graph_spans = before
    assert called.tobytes() == replayed.tobytes()


def test_float32_agrees_with_transformers_on_a_cpu(device: str) -> None:
    token_ids = random_tokens(300, vocab_size=4096)
    expected = reference_logits(load_reference(EMBEDDED), token_ids)
    runner = torch_runner(EMBEDDED, device=device, block_size=16, fixed_shape=FixedShape())
    sequences = Sequences(block_size=16)
    whole = run_chunks(runner, sequences.make(token_ids), [300])
    decoded = run_decode(runner, sequences.make(token_ids), 250)
    np.testing.assert_allclose(whole, expected, atol=1e-3)
    assert decoded.tobytes() == whole.tobytes()


def test_figures_can_be_taken(device: str, tmp_path: Path) -> None:
    figures.main([str(tmp_path / "out.json"), "--models", "embedded", "--rounds", "3"])
    found = json.loads((tmp_path / "out.json").read_text())["models"]["embedded"]
    assert found["fixed"]["keeps the law"]
    assert found["fixed"]["decode, 64 at once"] > found["fixed"]["decode, 1 at once"]
