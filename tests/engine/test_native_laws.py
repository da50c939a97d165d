"""The native engine's law: an answer's bits depend on its own tokens and the weights alone."""

from __future__ import annotations

import asyncio
import itertools
import os
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance.engine.sequence import SamplingParams
from tests.engine import law_harness
from tests.engine.engine_setup import Request
from tests.engine.law_harness import (
    MAX_NEW,
    MAX_PROMPT,
    Setup,
    request_strategy,
    setup_strategy,
    write_models,
)
from tests.engine.native_harness import (
    QUANTIZATIONS,
    embedded_model,
    native_library,
    native_runner,
    supported_variants,
)
from tests.engine.neighbour import busy_neighbour
from tests.engine.runner_harness import Sequences, random_tokens, run_chunks
from tests.fakes import FakeObserver
from tests.model_factory import write_model

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from appliance.engine.runner import Runner
    from appliance.engine.sequence import FloatArray

NUM_EXAMPLES = int(os.environ.get("NATIVE_LAW_EXAMPLES", "12"))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_models(tmp_path_factory.mktemp("models"))


@pytest.fixture
def best_variant() -> Iterator[str]:
    best = supported_variants()[0]
    yield best
    native_library().choose_variant(best)


async def answer_all(
    path: Path,
    quantization: str,
    setup: Setup,
    requests: list[Request],
    observer: FakeObserver | None = None,
) -> list[list[tuple[object, ...]]]:
    def make_runner(setup: Setup) -> Runner:
        return native_runner(
            path,
            quantization=quantization,
            num_threads=setup.num_threads,
            block_size=setup.block_size,
            num_blocks=setup.num_blocks,
        )

    return await law_harness.answer_all(make_runner, setup, requests, observer)


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
@pytest.mark.parametrize("name", ["plain", "odd, qk-norm", "window"])
@settings(
    max_examples=NUM_EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(setup=setup_strategy, requests=st.lists(request_strategy, min_size=1, max_size=8))
def test_no_schedule_changes_an_answer(
    name: str,
    quantization: str,
    models: dict[str, Path],
    setup: Setup,
    requests: list[Request],
) -> None:
    """Batch size, order, arrival, chunk size, threads, block placement, prefix hits, guesses, and
    a second model that computes beside it."""

    async def scenario() -> None:
        together = await answer_all(models[name], quantization, setup, requests)
        for request, answer in zip(requests, together, strict=True):
            (alone,) = await answer_all(models[name], quantization, Setup(), [request])
            assert answer == alone
        with busy_neighbour(models["odd, qk-norm"]):
            backwards = await answer_all(
                models[name], quantization, replace(setup, max_sequences=5), requests[::-1]
            )
        assert backwards[::-1] == together

    asyncio.run(scenario())


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
@pytest.mark.parametrize("name", ["plain", "odd, qk-norm", "window"])
@pytest.mark.parametrize("max_batch_tokens", [7, 512])
def test_what_lost_its_blocks_and_was_computed_again_keeps_its_bits(
    max_batch_tokens: int, name: str, quantization: str, models: dict[str, Path]
) -> None:
    """Choices of one request and others beside them, in a cache for one: all but one give way."""
    sampled = SamplingParams(
        max_new_tokens=40, seed=5, temperature=0.8, num_logprobs=3, num_prompt_logprobs=1
    )
    prompts = [*[random_tokens(10)] * 3, random_tokens(14, seed=1), random_tokens(30, seed=2)]
    requests = [
        Request(tuple(prompt), replace(sampled, seed=5 + index), False, 0)
        for index, prompt in enumerate(prompts)
    ]
    requests.append(Request(requests[0].prompt_ids, replace(sampled, temperature=0.0), False, 1))

    async def scenario() -> None:
        observer = FakeObserver()
        setup = Setup(max_batch_tokens=max_batch_tokens, max_sequences=6, num_threads=2)
        with busy_neighbour(models["plain"]):
            together = await answer_all(models[name], quantization, setup, requests, observer)
        assert observer.num_preemptions >= 3
        for request, answer in zip(requests, together, strict=True):
            (alone,) = await answer_all(models[name], quantization, Setup(), [request])
            assert answer == alone
        assert len({tuple(answer) for answer in together[:3]}) == 3, "each choice has its seed"

    asyncio.run(scenario())


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
@pytest.mark.parametrize("name", ["plain", "odd, qk-norm", "window"])
@pytest.mark.parametrize("max_batch_tokens", [7, 512])
def test_a_prefix_found_in_the_cache_changes_no_bit(
    max_batch_tokens: int, name: str, quantization: str, models: dict[str, Path]
) -> None:
    """Beginnings found whole, in part, in the same batch, and after their sequence ended."""
    stem = random_tokens(64)
    params = SamplingParams(max_new_tokens=6, seed=3, temperature=0.8, num_logprobs=3)
    requests = [
        Request((*stem[:length], *random_tokens(5, seed=length)), params, False, num_steps)
        for length, num_steps in ((64, 0), (64, 0), (33, 2), (48, 30), (16, 0), (15, 1))
    ]

    async def scenario() -> None:
        observer = FakeObserver()
        setup = Setup(
            max_batch_tokens=max_batch_tokens,
            max_sequences=3,
            num_threads=2,
            num_spare_blocks=30,
            shares_prefixes=True,
        )
        found = await answer_all(models[name], quantization, setup, requests, observer)
        assert observer.num_reused_tokens >= 64 + 32 + 48 + 16
        assert found == [
            answer
            for request in requests
            for answer in await answer_all(models[name], quantization, Setup(), [request])
        ]

    asyncio.run(scenario())


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
@pytest.mark.parametrize("temperature", [0.0, 0.5])
def test_guessing_tokens_changes_no_bit(temperature: float, quantization: str) -> None:
    """A model that has four words only repeats itself enough for guesses to be right, and wrong."""
    path = embedded_model()
    words = random_tokens(12, vocab_size=4096)
    requests = [
        Request(
            (*words[index:], *words, *words),
            SamplingParams(
                max_new_tokens=60,
                seed=index,
                temperature=temperature,
                repetition_penalty=1.0 + index % 2 * 0.05,
                logit_bias=dict.fromkeys(words[:4], 40.0),
                num_logprobs=2,
            ),
            False,
            index % 3,
        )
        for index in range(4)
    ]

    async def scenario() -> None:
        observer = FakeObserver()
        setup = Setup(max_sequences=2, num_threads=2, num_spare_blocks=30, speculates=True)
        guessed = await answer_all(path, quantization, setup, requests, observer)
        assert 0 < observer.num_accepted <= observer.num_drafted
        assert temperature == 0.0 or observer.num_accepted < observer.num_drafted
        assert guessed == [
            answer
            for request in requests
            for answer in await answer_all(
                path, quantization, Setup(num_spare_blocks=30), [request]
            )
        ]

    asyncio.run(scenario())


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_the_embedded_model_answers_alike_in_every_setup(quantization: str) -> None:
    path = embedded_model()
    params = SamplingParams(max_new_tokens=MAX_NEW, seed=7, temperature=0.9, num_logprobs=3)
    requests = [
        Request(tuple(random_tokens(length, seed=length)), params, length == 33, length % 3)
        for length in (1, 5, 16, 17, 33, 64, 70)
    ]

    async def scenario() -> None:
        alone = [
            answer
            for request in requests
            for answer in await answer_all(path, quantization, Setup(), [request])
        ]
        for max_batch_tokens, num_threads in itertools.product((7, 16, 512), (1, 2)):
            setup = Setup(
                max_batch_tokens=max_batch_tokens,
                num_threads=num_threads,
                max_sequences=5,
                num_spare_blocks=30,
                num_shuffled=3,
                shares_prefixes=True,
                speculates=True,
            )
            assert await answer_all(path, quantization, setup, requests) == alone
            with busy_neighbour(path):
                assert await answer_all(path, quantization, setup, requests) == alone

    asyncio.run(scenario())


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
@pytest.mark.parametrize("name", ["plain", "odd, qk-norm", "window"])
def test_every_variant_gives_the_same_bits(
    name: str, quantization: str, models: dict[str, Path], best_variant: str
) -> None:
    assert supported_variants()[0] == best_variant
    token_ids = random_tokens(MAX_PROMPT)
    logits: dict[str, FloatArray] = {}
    for variant in supported_variants():
        native_library().choose_variant(variant)
        runner = native_runner(models[name], quantization=quantization)
        sequence = Sequences(block_size=16).make(token_ids)
        logits[variant] = run_chunks(runner, sequence, [30, 1, 1, 9, MAX_PROMPT - 41])
    assert len({rows.tobytes() for rows in logits.values()}) == 1


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_every_variant_gives_the_embedded_model_the_same_bits(
    quantization: str, best_variant: str
) -> None:
    path, found = embedded_model(), set()
    for variant in supported_variants():
        native_library().choose_variant(variant)
        sequence = Sequences(block_size=16).make(random_tokens(90, vocab_size=4096))
        found.add(
            run_chunks(native_runner(path, quantization=quantization), sequence, [90]).tobytes()
        )
    native_library().choose_variant(best_variant)
    assert len(found) == 1


@pytest.mark.parametrize("name", ["plain", "odd, qk-norm", "window"])
def test_what_another_sequence_left_in_a_block_is_never_seen(
    name: str, models: dict[str, Path], best_variant: str
) -> None:
    """Not even infinities, of which a zero weight would make no number."""
    assert supported_variants()[0] == best_variant
    token_ids, found = random_tokens(MAX_PROMPT), set()
    for variant in supported_variants():
        native_library().choose_variant(variant)
        for left in (0, 0x7F80):
            for lengths in ([MAX_PROMPT], [30, 1, 1, 9, MAX_PROMPT - 41], [15, 2, MAX_PROMPT - 17]):
                runner = native_runner(models[name])
                np.frombuffer(runner._cache, np.uint16)[:] = left
                sequence = Sequences(block_size=16).make(token_ids)
                found.add(run_chunks(runner, sequence, lengths).tobytes())
    assert len(found) == 1
    assert np.isfinite(np.frombuffer(found.pop(), np.float32)).all()


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_a_model_wider_than_a_piece_of_work_is_the_same_for_one_thread(
    quantization: str, tmp_path: Path
) -> None:
    """A thread has room to work on one piece at a time, also where it has all of them to itself."""
    path = write_model(tmp_path, hidden_size=680, intermediate_size=200)
    token_ids, found = random_tokens(40), set()
    for num_threads in (1, 2):
        runner = native_runner(path, quantization=quantization, num_threads=num_threads)
        for lengths in ([40], [33, *[1] * 7]):
            sequence = Sequences(block_size=16).make(token_ids)
            found.add(run_chunks(runner, sequence, lengths).tobytes())
    assert len(found) == 1
