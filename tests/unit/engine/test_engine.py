"""Sequences go in, events come out, and no sequence or runner takes the engine down."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from typing import TYPE_CHECKING, TypeVarTuple

import numpy as np
import pytest

from appliance.engine.engine import MAX_FAILED_STEPS, Engine
from appliance.engine.sequence import FinishReason, SamplingParams, TokenEvent
from appliance.engine.stream import SequenceStream
from appliance.errors import ContextLengthExceeded, InvalidRequest, NotReady, Overloaded
from tests.fakes import FakeClock, FakeConstraint, FakeRunner

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import Context

    from appliance.engine.engine import EngineObserver

Ts = TypeVarTuple("Ts")


def make_engine(
    runner: FakeRunner,
    *,
    max_batch_tokens: int = 16,
    max_sequences: int = 4,
    max_queued: int = 8,
    observer: EngineObserver | None = None,
    clock: FakeClock | None = None,
) -> Engine:
    return Engine(
        runner,
        max_batch_tokens=max_batch_tokens,
        max_sequences=max_sequences,
        max_queued=max_queued,
        queue_timeout_s=10.0,
        observer=observer,
        clock=clock or FakeClock(),
    )


def greedy(max_new_tokens: int = 4) -> SamplingParams:
    return SamplingParams(max_new_tokens=max_new_tokens, seed=0, temperature=0.0)


def run_dry(engine: Engine) -> None:
    while engine.num_running or engine.num_waiting:
        engine.step()


async def read(stream: SequenceStream) -> list[TokenEvent]:
    return [event async for event in stream]


def tokens_of(events: list[TokenEvent]) -> list[int]:
    return [event.token_id for event in events if event.token_id is not None]


def reason_of(events: list[TokenEvent]) -> FinishReason | None:
    """The reason of the final event, which is the only one to have one."""
    assert all(event.finish_reason is None for event in events[:-1])
    return events[-1].finish_reason


def test_a_stream_gives_the_tokens_the_model_says() -> None:
    async def scenario() -> None:
        runner = FakeRunner()
        engine = make_engine(runner)
        stream = engine.submit([1, 2, 3], greedy())
        run_dry(engine)
        events = await read(stream)
        prefix = [1, 2, 3]
        for token_id in tokens_of(events):
            assert token_id == runner.logits_after(prefix).argmax()
            prefix.append(token_id)
        assert len(prefix) == 7
        assert reason_of(events) is FinishReason.LENGTH

    asyncio.run(scenario())


def test_the_thread_serves_streams_that_are_read_at_the_same_time() -> None:
    async def scenario() -> None:
        engine = make_engine(FakeRunner(script=[5, 6, 7, 8]))
        engine.start()
        streams = [engine.submit([1] * length, greedy()) for length in (1, 20, 7)]
        results = await asyncio.gather(*map(read, streams))
        late = await read(engine.submit([2], greedy()))
        engine.stop()
        assert [tokens_of(events) for events in [*results, late]] == [[5, 6, 7, 8]] * 4

    asyncio.run(scenario())


def test_a_sequence_joins_while_others_decode() -> None:
    async def scenario() -> None:
        runner = FakeRunner()
        engine = make_engine(runner)
        engine.submit([1, 2, 3], greedy())
        engine.step()
        engine.submit([4, 5], greedy())
        engine.step()
        assert runner.batches[1] == [(1, 3, 1), (2, 0, 2)]

    asyncio.run(scenario())


def test_all_events_of_a_step_cross_to_the_loop_in_one_call() -> None:
    class CountingLoop(asyncio.SelectorEventLoop):
        num_calls = 0

        def call_soon_threadsafe(
            self,
            callback: Callable[[*Ts], object],
            *args: *Ts,
            context: Context | None = None,
        ) -> asyncio.Handle:
            self.num_calls += 1
            return super().call_soon_threadsafe(callback, *args, context=context)

    async def scenario() -> None:
        engine = make_engine(FakeRunner())
        for _ in range(3):
            engine.submit([1, 2], greedy())
        assert len(engine.step()) == 3

    loop = CountingLoop()
    loop.run_until_complete(scenario())
    loop.close()
    assert loop.num_calls == 1


def test_a_stop_token_is_the_last_event_s_token() -> None:
    async def scenario() -> None:
        engine = make_engine(FakeRunner(script=[5, 6, 0, 7]))
        params = SamplingParams(
            max_new_tokens=9, seed=0, temperature=0.0, stop_token_ids=frozenset({0})
        )
        stream = engine.submit([1], params)
        run_dry(engine)
        events = await read(stream)
        assert tokens_of(events) == [5, 6, 0]
        assert reason_of(events) is FinishReason.STOP

    asyncio.run(scenario())


def test_a_grammar_steers_and_ends_a_sequence() -> None:
    async def scenario() -> None:
        engine = make_engine(FakeRunner())
        stream = engine.submit([1], greedy(9), FakeConstraint([3, 1, 4]))
        run_dry(engine)
        events = await read(stream)
        assert tokens_of(events) == [3, 1, 4]
        assert reason_of(events) is FinishReason.STOP

    asyncio.run(scenario())


@pytest.mark.parametrize("max_batch_tokens", [3, 16])
def test_scoring_a_prompt_makes_no_token(max_batch_tokens: int) -> None:
    async def scenario() -> None:
        runner = FakeRunner()
        engine = make_engine(runner, max_batch_tokens=max_batch_tokens)
        params = SamplingParams(max_new_tokens=0, seed=0, num_prompt_logprobs=0)
        stream = engine.submit([3, 1, 4, 1, 5], params)
        run_dry(engine)
        (event,) = await read(stream)
        assert event.token_id is None
        assert event.finish_reason is FinishReason.LENGTH
        assert event.prompt_logprobs is not None
        assert event.prompt_logprobs[0] is None
        for position, logprobs in enumerate(event.prompt_logprobs[1:], start=1):
            logits = runner.logits_after([3, 1, 4, 1, 5][:position]).astype(np.float64)
            expected = logits - np.log(np.exp(logits).sum())
            assert logprobs is not None
            assert logprobs.logprob == pytest.approx(expected[logprobs.token_id])

    asyncio.run(scenario())


@pytest.mark.parametrize("max_batch_tokens", [1, 2, 16])
def test_an_embedding_is_the_same_bits_in_chunks_of_any_size(max_batch_tokens: int) -> None:
    async def scenario() -> None:
        runner = FakeRunner()
        engine = make_engine(runner, max_batch_tokens=max_batch_tokens)
        stream = engine.submit([3, 1, 4, 1, 5], greedy(0), is_pooled=True)
        run_dry(engine)
        (event,) = await read(stream)
        assert event.finish_reason is FinishReason.STOP
        assert event.embedding is not None
        assert event.embedding.tobytes() == runner.embedding_of([3, 1, 4, 1, 5]).tobytes()

    asyncio.run(scenario())


@pytest.mark.parametrize("num_steps", [0, 1, 3])
def test_cancelling_frees_the_blocks_with_the_next_step(num_steps: int) -> None:
    async def scenario() -> None:
        runner = FakeRunner()
        engine = make_engine(runner, max_batch_tokens=8)
        stream = engine.submit(range(12), greedy(9))
        for _ in range(num_steps):  # queued, in prefill, decoding
            engine.step()
        stream.cancel()
        stream.cancel()
        engine.step()
        assert engine.num_used_blocks == engine.num_running == engine.num_waiting == 0
        assert reason_of(await read(stream)) is FinishReason.CANCELLED
        assert runner.released == [stream.sequence_id]

    asyncio.run(scenario())


def test_cancelling_what_has_ended_or_never_was_does_nothing() -> None:
    async def scenario() -> None:
        engine = make_engine(FakeRunner())
        stream = engine.submit([1], greedy())
        run_dry(engine)
        stream.cancel()
        engine.cancel(999)
        assert engine.step() == []
        assert reason_of(await read(stream)) is FinishReason.LENGTH

    asyncio.run(scenario())


def test_closing_a_stream_cancels_its_sequence() -> None:
    async def scenario() -> None:
        engine = make_engine(FakeRunner())
        async with aclosing(engine.submit([1], greedy(50))) as stream:
            engine.step()
            async for _ in stream:
                break
        engine.step()
        assert engine.num_used_blocks == engine.num_running == 0

    asyncio.run(scenario())


def test_a_reader_that_is_cancelled_while_it_waits_cancels_its_sequence() -> None:
    async def scenario() -> None:
        engine = make_engine(FakeRunner())

        async def consume() -> None:
            async with aclosing(engine.submit([1], greedy(50))) as stream:
                await read(stream)

        reader = asyncio.create_task(consume())
        await asyncio.sleep(0)
        engine.step()
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        (event,) = engine.step()
        assert event.finish_reason is FinishReason.CANCELLED
        assert engine.num_used_blocks == 0

    asyncio.run(scenario())


def test_a_reader_whose_loop_is_gone_is_cancelled() -> None:
    engine = make_engine(FakeRunner())

    async def submit() -> None:
        engine.submit([1], greedy(50))

    asyncio.run(submit())
    engine.step()
    engine.step()
    assert engine.num_running == engine.num_used_blocks == 0


def test_a_sequence_that_waits_too_long_is_told_so() -> None:
    async def scenario() -> None:
        clock = FakeClock()
        engine = make_engine(FakeRunner(), max_sequences=1, clock=clock)
        first, second = engine.submit([1], greedy(9)), engine.submit([1], greedy(9))
        engine.step()
        clock.advance(10)
        engine.step()
        assert reason_of(await read(second)) is FinishReason.TIMED_OUT
        run_dry(engine)
        assert reason_of(await read(first)) is FinishReason.LENGTH

    asyncio.run(scenario())


def test_a_full_queue_refuses() -> None:
    async def scenario() -> None:
        engine = make_engine(FakeRunner(), max_sequences=1, max_queued=0)
        engine.submit([1], greedy())
        with pytest.raises(Overloaded):
            engine.submit([1], greedy())

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("prompt_ids", "params", "words"),
    [
        ([], greedy(), "prompt is empty"),
        ([1, 64], greedy(), "token id 64; the model's are 0 to 63"),
        ([-1], greedy(), "token id -1"),
        ([1], SamplingParams(max_new_tokens=1, seed=0, logit_bias={64: 1.0}), "logit_bias names"),
    ],
)
def test_what_would_fail_the_whole_batch_is_refused(
    prompt_ids: list[int], params: SamplingParams, words: str
) -> None:
    async def scenario() -> None:
        with pytest.raises(InvalidRequest, match=words):
            make_engine(FakeRunner()).submit(prompt_ids, params)

    asyncio.run(scenario())


def test_more_tokens_than_model_and_cache_hold_are_refused() -> None:
    async def scenario() -> None:
        for runner in (FakeRunner(max_context_tokens=20), FakeRunner(num_blocks=5)):
            engine = make_engine(runner)
            assert engine.max_context_tokens == 20
            engine.submit([1] * 16, greedy(4))
            with pytest.raises(ContextLengthExceeded):
                engine.submit([1] * 17, greedy(4))

    asyncio.run(scenario())


def test_a_forward_pass_that_raises_fails_its_batch_and_no_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> None:
        runner = FakeRunner()
        runner.num_failures_left = 1
        engine = make_engine(runner, max_sequences=2)
        streams = [engine.submit([41, 42, 43], greedy()) for _ in range(3)]
        engine.step()
        assert engine.num_used_blocks == 0
        run_dry(engine)
        reasons = [reason_of(await read(stream)) for stream in streams]
        assert reasons == [FinishReason.FAILED, FinishReason.FAILED, FinishReason.LENGTH]
        assert runner.released == [1, 2, 3]

    with caplog.at_level(logging.ERROR):
        asyncio.run(scenario())
    (record,) = caplog.records
    assert record.__dict__["sequence_ids"] == [1, 2]
    assert "42" not in caplog.text


def test_an_engine_has_failed_after_a_streak_of_failures_until_a_step_succeeds() -> None:
    async def scenario() -> None:
        runner = FakeRunner()
        runner.num_failures_left = MAX_FAILED_STEPS
        engine = make_engine(runner)
        for _ in range(MAX_FAILED_STEPS):
            assert not engine.has_failed
            engine.submit([1], greedy())
            engine.step()
        assert engine.has_failed
        engine.submit([1], greedy())
        engine.step()
        assert not engine.has_failed

    asyncio.run(scenario())


def test_logits_that_are_not_finite_fail_their_sequence_only() -> None:
    async def scenario() -> None:
        runner = FakeRunner()
        runner.nan_sequence_ids = {1}
        engine = make_engine(runner)
        first, second = engine.submit([1], greedy()), engine.submit([1], greedy())
        engine.step()
        assert engine.num_running == 1
        run_dry(engine)
        assert reason_of(await read(first)) is FinishReason.FAILED
        assert reason_of(await read(second)) is FinishReason.LENGTH
        assert not engine.has_failed

    asyncio.run(scenario())


def test_a_grammar_that_raises_fails_its_sequence_only() -> None:
    async def scenario() -> None:
        engine = make_engine(FakeRunner())
        broken = engine.submit([1], greedy(), FakeConstraint([]))
        healthy = engine.submit([1], greedy())
        run_dry(engine)
        assert reason_of(await read(broken)) is FinishReason.FAILED
        assert reason_of(await read(healthy)) is FinishReason.LENGTH

    asyncio.run(scenario())


def test_a_step_that_breaks_ends_every_sequence_and_the_thread_lives_on() -> None:
    class OneBadReport:
        num_reports = 0

        def on_step(self, *_: float) -> None:
            self.num_reports += 1
            if self.num_reports == 1:
                raise RuntimeError("the observer is broken")

    async def scenario() -> None:
        engine = make_engine(FakeRunner(), observer=OneBadReport())
        first = engine.submit([1], greedy(9))
        engine.start()
        assert reason_of(await read(first)) is FinishReason.FAILED
        assert reason_of(await read(engine.submit([1], greedy()))) is FinishReason.LENGTH
        engine.stop()
        assert engine.num_used_blocks == 0

    asyncio.run(scenario())


def test_an_engine_with_work_and_no_step_is_stalled() -> None:
    async def scenario() -> None:
        clock = FakeClock()
        engine = make_engine(FakeRunner(), clock=clock)
        clock.advance(1000)
        assert not engine.is_stalled(after_s=30)
        engine.submit([1], greedy())
        assert not engine.is_stalled(after_s=30)
        clock.advance(30)
        assert engine.is_stalled(after_s=30)
        engine.step()
        assert not engine.is_stalled(after_s=30)
        assert engine.last_step_at == 1030

    asyncio.run(scenario())


def test_an_observer_hears_of_every_step() -> None:
    class Recorder:
        def __init__(self) -> None:
            self.reports: list[tuple[float, ...]] = []

        def on_step(self, *report: float) -> None:
            self.reports.append(report)

    async def scenario() -> None:
        recorder = Recorder()
        engine = make_engine(FakeRunner(), max_sequences=1, observer=recorder)
        for _ in range(2):
            engine.submit([1] * 5, greedy(2))
        engine.step()
        engine.step()
        # Tokens, seconds, running, waiting, used blocks.
        assert recorder.reports == [(5, 0.0, 1, 1, 2), (1, 0.0, 0, 1, 0)]

    asyncio.run(scenario())


def test_draining_lets_sequences_finish_and_refuses_new_ones() -> None:
    async def scenario() -> None:
        engine = make_engine(FakeRunner(), max_sequences=1)
        streams = [engine.submit([1], greedy()) for _ in range(2)]
        engine.start()
        await engine.drain(timeout_s=60)
        with pytest.raises(NotReady):
            engine.submit([1], greedy())
        reasons = [reason_of(await read(stream)) for stream in streams]
        assert reasons == [FinishReason.LENGTH] * 2
        engine.stop()

    asyncio.run(scenario())


def test_draining_cancels_what_outlasts_the_deadline() -> None:
    async def scenario() -> None:
        engine = make_engine(FakeRunner(), max_sequences=1)
        streams = [engine.submit([1], greedy(99)) for _ in range(2)]
        drain = asyncio.create_task(engine.drain(timeout_s=0))
        while not drain.done():
            engine.step()
            await asyncio.sleep(0)
        reasons = [reason_of(await read(stream)) for stream in streams]
        assert reasons == [FinishReason.CANCELLED] * 2
        assert engine.num_used_blocks == 0

    asyncio.run(scenario())


@pytest.mark.parametrize("is_started", [False, True])
def test_stopping_ends_every_sequence(is_started: bool) -> None:
    async def scenario() -> None:
        engine = make_engine(FakeRunner(max_context_tokens=10**6, num_blocks=10**5))
        streams = [engine.submit([1], greedy(100_000)) for _ in range(6)]
        if is_started:
            engine.start()
        engine.stop()
        engine.stop()
        reasons = [reason_of(await read(stream)) for stream in streams]
        assert reasons == [FinishReason.CANCELLED] * 6
        assert engine.num_used_blocks == 0
        with pytest.raises(NotReady):
            engine.submit([1], greedy())

    asyncio.run(scenario())
