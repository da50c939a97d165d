"""The law on torch, where every product has one shape: here on a CPU, in tests/gpu on CUDA."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance.engine.sequence import SamplingParams
from appliance.engine.torch.fixed_attention import FixedShape
from tests.engine.engine_setup import Request
from tests.engine.law_harness import (
    Setup,
    answer_all,
    lawful,
    request_strategy,
    setup_strategy,
    write_models,
)
from tests.engine.runner_harness import random_tokens, torch_runner
from tests.fakes import FakeObserver

if TYPE_CHECKING:
    from pathlib import Path

    from appliance.engine.runner import Runner

# Small, so that prompts of some dozen tokens have several tiles, groups and spans. Groups of one
# show best what would follow the number of rows: a product of one row is most unlike the others.
SHAPES = {
    "plain": FixedShape(tile_rows=16, group_rows=1, span_tokens=32),
    "odd, qk-norm": FixedShape(tile_rows=16, group_rows=4, span_tokens=32),
    "window": FixedShape(tile_rows=16, group_rows=8, span_tokens=32),
}
DTYPES = ["float32", "bfloat16"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_models(tmp_path_factory.mktemp("models"))


def make_runner(path: Path, shape: FixedShape, dtype: str, setup: Setup) -> Runner:
    return lawful(
        torch_runner(
            path,
            dtype=dtype,
            block_size=setup.block_size,
            num_blocks=setup.num_blocks,
            fixed_shape=shape,
        )
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SHAPES)
@settings(
    max_examples=6,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(setup=setup_strategy, requests=st.lists(request_strategy, min_size=1, max_size=6))
def test_no_schedule_changes_an_answer(
    name: str, dtype: str, models: dict[str, Path], setup: Setup, requests: list[Request]
) -> None:
    """Batch size, order, arrival, chunk size, block placement, prefix hits, guesses."""

    async def scenario() -> None:
        make = partial(make_runner, models[name], SHAPES[name], dtype)
        used = make(Setup())
        together = await answer_all(make, setup, requests)
        for request, answer in zip(requests, together, strict=True):
            # One runner for them all: what earlier answers left in its cache is of no account.
            (alone,) = await answer_all(lambda _: used, Setup(), [request])
            assert answer == alone

    asyncio.run(scenario())


@pytest.mark.parametrize("dtype", DTYPES)
def test_preemption_prefix_hits_and_guesses_change_no_bit(
    dtype: str, models: dict[str, Path]
) -> None:
    """Each of them seen to happen; four words only, so that guesses are right, and wrong."""
    stem = random_tokens(33, vocab_size=250)
    requests = [
        Request(
            (*stem, *random_tokens(3 + index, seed=index)),
            SamplingParams(
                max_new_tokens=40,
                seed=index,
                temperature=0.5 * (index % 2),
                logit_bias=dict.fromkeys(stem[:4], 40.0),
                num_logprobs=2,
            ),
            is_pooled=False,
            num_steps_before=index,
        )
        for index in range(4)
    ]

    async def scenario() -> None:
        observer = FakeObserver()
        make = partial(make_runner, models["plain"], SHAPES["plain"], dtype)
        setup = Setup(max_sequences=4, num_spare_blocks=6, shares_prefixes=True, speculates=True)
        together = await answer_all(make, setup, requests, observer)
        assert min(observer.num_preemptions, observer.num_reused_tokens) > 0
        assert 0 < observer.num_accepted < observer.num_drafted
        alone = Setup(num_spare_blocks=6)
        for request, answer in zip(requests, together, strict=True):
            assert [answer] == await answer_all(make, alone, [request])

    asyncio.run(scenario())
