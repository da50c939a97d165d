"""Sends the same requests to differently set-up engines and returns every bit of the answers."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from hypothesis import strategies as st

from appliance.engine.sequence import SamplingParams
from tests.engine.blocks import shuffle_blocks
from tests.engine.engine_setup import EngineSetup, Request, make_engine
from tests.fakes import FakeObserver
from tests.model_factory import write_model

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from appliance.engine.runner import Runner
    from appliance.engine.sequence import TokenEvent
    from appliance.engine.stream import SequenceStream

Tested = TypeVar("Tested", bound="Runner")

MAX_PROMPT, MAX_NEW = 70, 8


@dataclass(frozen=True, kw_only=True)
class Setup(EngineSetup):
    max_context_tokens: int = MAX_PROMPT + MAX_NEW


params_strategy = st.builds(
    SamplingParams,
    max_new_tokens=st.integers(0, MAX_NEW),
    seed=st.integers(0, 2**32),
    temperature=st.sampled_from([0.0, 0.8]),
    num_logprobs=st.just(3),
    num_prompt_logprobs=st.sampled_from([None, None, 1]),
)
request_strategy = st.builds(
    Request,
    prompt_ids=st.builds(  # half of them begin alike
        lambda stem, length, tail: (*range(stem, stem + length), *tail)[:MAX_PROMPT],
        st.sampled_from([0, 100]),
        st.integers(0, 60),
        st.lists(st.integers(0, 255), min_size=1, max_size=MAX_PROMPT),
    ),
    params=params_strategy,
    is_pooled=st.sampled_from([False, False, False, True]),
    num_steps_before=st.integers(0, 3),
    owner=st.sampled_from(["anna", "anna", "bert"]),
    priority=st.sampled_from([0, 0, 1]),
)
setup_strategy = st.builds(
    Setup,
    max_batch_tokens=st.sampled_from([7, 16, 512]),
    max_sequences=st.integers(1, 7),
    num_threads=st.sampled_from([1, 2]),
    block_size=st.sampled_from([16, 32]),
    num_spare_blocks=st.integers(0, 20),
    num_shuffled=st.integers(0, 5),
    shares_prefixes=st.sampled_from([True, True, False]),
    speculates=st.booleans(),
)


def write_models(directory: Path) -> dict[str, Path]:
    """Odd sizes on purpose: no dimension a multiple of the vector, windows shorter than prompts."""
    odd: dict[str, Any] = {
        "hidden_size": 40,
        "intermediate_size": 72,
        "head_dim": 12,
        "num_attention_heads": 6,
    }
    plain: dict[str, Any] = {"hidden_size": 64, "head_dim": 16, "intermediate_size": 160}
    return {
        "plain": write_model(directory / "plain", dtype="BF16", **plain),
        "odd, qk-norm": write_model(directory / "odd", model_type="qwen3", dtype="BF16", **odd),
        "window": write_model(
            directory / "window", model_type="mistral", dtype="BF16", sliding_window=21
        ),
    }


def lawful(runner: Tested) -> Tested:
    """The runner, if it claims the law: libraries may treat some rows of a tile otherwise.

    Those of the machines that CI runs on do not: there it would be our mistake.
    """
    note = runner.info.note
    if not runner.info.has_fixed_arithmetic and "too small" not in (note or ""):
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"torch here: {note}")
    return runner


def content(event: TokenEvent) -> tuple[object, ...]:
    embedding = None if event.embedding is None else event.embedding.tobytes()
    return event.token_id, event.logprobs, event.prompt_logprobs, embedding, event.finish_reason


async def answer_all(
    make_runner: Callable[[Setup], Runner],
    setup: Setup,
    requests: list[Request],
    observer: FakeObserver | None = None,
) -> list[list[tuple[object, ...]]]:
    """Every answer of a fresh engine, logprobs to the last bit."""
    engine = make_engine(make_runner(setup), setup, observer or FakeObserver())
    shuffle_blocks(engine._allocator, setup.num_shuffled)
    streams: list[SequenceStream] = []
    for request in requests:
        for _ in range(request.num_steps_before):
            engine.step()
        streams.append(
            engine.submit(
                request.prompt_ids,
                request.params,
                is_pooled=request.is_pooled,
                owner=request.owner,
                priority=request.priority,
            )
        )
    while engine.num_running or engine.num_waiting:
        engine.step()
    return [[content(event) async for event in stream] for stream in streams]
