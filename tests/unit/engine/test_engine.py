"""Sequences go in, events come out, and no sequence or runner takes the engine down."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, TypeVarTuple

import numpy as np
import pytest

from appliance.engine.engine import MAX_FAILED_STEPS, Engine
from appliance.engine.pacing import FIRST_PROMPT_TOKENS
from appliance.engine.sequence import (
    Batch,
    ChunkOutput,
    FinishReason,
    SamplingParams,
    TokenEvent,
)
from appliance.engine.stream import SequenceStream
from appliance.errors import ContextLengthExceeded, InvalidRequest, NotReady, Overloaded
from tests.fakes import FakeClock, FakeConstraint, FakeObserver, FakeRunner

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import Context

    from appliance.engine.observer import EngineObserver

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


def test_a_reader_that_found_the_end_itself_gives_the_reason() -> None:
    async def scenario() -> None:
        observer = FakeObserver()
        engine = make_engine(FakeRunner(), observer=observer)
        stream = engine.submit([1], greedy(50))
        engine.step()
        stream.cancel(FinishReason.STOP)
        stream.cancel()
        engine.step()
        assert engine.num_used_blocks == 0
        assert reason_of(await read(stream)) is FinishReason.STOP
        assert observer.ends == [FinishReason.STOP]

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


def test_a_reader_may_leave_and_cancel_its_sequence() -> None:
    async def scenario() -> None:
        engine = make_engine(FakeRunner())
        stream = engine.submit([1], greedy(50))
        engine.step()
        async for _ in stream:
            break
        stream.cancel()
        engine.step()
        assert engine.num_used_blocks == engine.num_running == 0

    asyncio.run(scenario())


def test_a_reader_that_is_cancelled_while_it_waits_cancels_its_sequence() -> None:
    async def scenario() -> None:
        engine = make_engine(FakeRunner())

        async def consume() -> None:
            stream = engine.submit([1], greedy(50))
            try:
                await read(stream)
            finally:
                stream.cancel()

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
        ([1, 64], greedy(), "Token id 64 is not one of the model's, which are 0 to 63"),
        ([-1], greedy(), "Token id -1"),
        (
            [1],
            SamplingParams(max_new_tokens=1, seed=0, logit_bias={64: 1.0}),
            "Token id 64 in `logit_bias`",
        ),
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
        streams = [
            engine.submit([41, 42, 43], greedy(), request_id=request_id)
            for request_id in ("req-a", "req-a", "req-b")
        ]
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
    assert record.__dict__["request_ids"] == ["req-a"]
    assert "41, 42" not in caplog.text


def test_a_pass_that_failed_says_nothing_of_how_long_others_take() -> None:
    clock = FakeClock()

    class TimedRunner(FakeRunner):
        def forward(self, batch: Batch) -> list[ChunkOutput]:
            clock.advance(0.001)
            return super().forward(batch)

    async def scenario() -> None:
        runner = TimedRunner(num_blocks=512, max_context_tokens=512)
        runner.num_failures_left = 1
        engine = make_engine(runner, max_batch_tokens=256, clock=clock)
        for num_tokens in (200, 4, 400):
            engine.submit([1] * num_tokens, greedy())
            engine.step()
        _, (_, _, num_read) = runner.batches[-1]
        assert num_read == FIRST_PROMPT_TOKENS

    asyncio.run(scenario())


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


def test_logits_that_are_not_finite_fail_their_sequence_only(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> None:
        runner = FakeRunner()
        runner.nan_sequence_ids = {1}
        engine = make_engine(runner)
        first = engine.submit([1], greedy(), request_id="req-a")
        second = engine.submit([1], greedy(), request_id="req-b")
        engine.step()
        assert engine.num_running == 1
        run_dry(engine)
        assert reason_of(await read(first)) is FinishReason.FAILED
        assert reason_of(await read(second)) is FinishReason.LENGTH
        assert not engine.has_failed

    asyncio.run(scenario())
    (record,) = caplog.records
    assert record.__dict__["request_ids"] == ["req-a"]


def test_a_penalty_that_makes_logits_overflow_fails_its_sequence_only() -> None:
    async def scenario() -> None:
        engine = make_engine(FakeRunner())
        params = SamplingParams(max_new_tokens=4, seed=0, repetition_penalty=1e-300)
        broken, healthy = engine.submit(range(64), params), engine.submit([1], greedy())
        run_dry(engine)
        assert reason_of(await read(broken)) is FinishReason.FAILED
        assert reason_of(await read(healthy)) is FinishReason.LENGTH
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
    class OneBadReport(FakeObserver):
        def on_step(self, num_tokens: int, duration_s: float, /) -> None:
            super().on_step(num_tokens, duration_s)
            if len(self.steps) == 1:
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

    asyncio.run(scenario())


def test_an_observer_hears_of_every_step_and_every_token_on_the_engines_clock() -> None:
    class SlowRunner(FakeRunner):
        def forward(self, batch: Batch) -> list[ChunkOutput]:
            clock.advance(0.5)
            return super().forward(batch)

    clock, observer = FakeClock(), FakeObserver()

    async def scenario() -> None:
        engine = make_engine(SlowRunner(), max_sequences=1, observer=observer, clock=clock)
        engine.submit([1] * 5, greedy(3))
        engine.submit([2] * 6, greedy(1))
        run_dry(engine)

    asyncio.run(scenario())
    assert observer.prompts == [5, 6]
    assert observer.steps == [(5, 0.5), (1, 0.5), (1, 0.5), (6, 0.5)]
    assert observer.first_delays_s == [0.5, 2.0]
    assert observer.intervals_s == [0.5, 0.5]


def test_an_observer_hears_of_every_end_once() -> None:
    async def scenario() -> None:
        runner, clock, observer = FakeRunner(), FakeClock(), FakeObserver()
        runner.nan_sequence_ids = {2}
        engine = make_engine(runner, max_sequences=5, observer=observer, clock=clock)
        engine.submit([1], greedy(1))
        engine.submit([1], greedy(1))
        engine.submit([1], greedy(0), is_pooled=True)
        engine.submit([1], greedy(99)).cancel()
        engine.submit([1], greedy(99))
        engine.step()
        assert sorted(observer.ends) == ["cancelled", "failed", "length", "stop"]
        engine.stop()
        assert observer.ends[4:] == [FinishReason.CANCELLED]

    asyncio.run(scenario())


def test_an_end_is_reported_before_its_reader_hears_of_it() -> None:
    async def scenario() -> None:
        observer = FakeObserver()
        engine = make_engine(FakeRunner(), observer=observer)
        engine.start()
        for number in range(1, 20):
            await read(engine.submit([1], greedy(2)))
            assert len(observer.ends) == number
        engine.stop()

    asyncio.run(scenario())


def test_an_observer_that_breaks_at_an_end_keeps_no_reader_waiting() -> None:
    class NoEnds(FakeObserver):
        def on_end(self, reason: FinishReason, /) -> None:
            raise RuntimeError("the observer is broken")

    async def scenario() -> None:
        engine = make_engine(FakeRunner(), observer=NoEnds())
        streams = [engine.submit([1], greedy(number)) for number in (1, 9)]
        with pytest.raises(RuntimeError):
            engine.step()
        with pytest.raises(RuntimeError):
            engine.stop()
        reasons = [reason_of(await read(stream)) for stream in streams]
        assert reasons == [FinishReason.LENGTH, FinishReason.CANCELLED]

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


class Crowd:
    """A cache of four blocks and two sequences that outgrow it together: the second is preempted.

    With a small budget the second is still in its prompt when it is preempted.
    """

    def __init__(self, *, max_batch_tokens: int = 16) -> None:
        self.clock, self.observer = FakeClock(), FakeObserver()
        self.runner = FakeRunner(num_blocks=4)
        self.engine = make_engine(
            self.runner,
            max_batch_tokens=max_batch_tokens,
            observer=self.observer,
            clock=self.clock,
        )
        self.first = self.engine.submit([9, 8, 7], greedy(9))

    def step_to_preemption(self) -> None:
        while not self.observer.num_preemptions:
            self.engine.step()


@pytest.mark.parametrize("max_batch_tokens", [5, 16])
def test_a_preempted_sequence_goes_on_as_if_nothing_had_been(max_batch_tokens: int) -> None:
    async def scenario() -> None:
        crowd = Crowd(max_batch_tokens=max_batch_tokens)
        params = SamplingParams(max_new_tokens=9, seed=5, num_logprobs=1, num_prompt_logprobs=1)
        second = crowd.engine.submit([6, 5, 4], params)
        run_dry(crowd.engine)
        assert crowd.observer.num_preemptions == 1
        assert crowd.runner.faults == []
        assert crowd.runner.released == [2, 1, 2]
        alone = make_engine(FakeRunner())
        expected = [alone.submit([9, 8, 7], greedy(9)), alone.submit([6, 5, 4], params)]
        run_dry(alone)
        for stream, other in zip((crowd.first, second), expected, strict=True):
            assert await read(stream) == await read(other)
        assert crowd.observer.prompts == [3, 3]
        assert len(crowd.observer.first_delays_s) == 2

    asyncio.run(scenario())


def test_a_grammar_goes_on_where_it_was_when_its_sequence_was_preempted() -> None:
    async def scenario() -> None:
        crowd = Crowd()
        constraint = FakeConstraint(range(20, 29))
        second = crowd.engine.submit([6, 5, 4], greedy(9), constraint)
        crowd.step_to_preemption()
        assert 0 < len(constraint.accepted) < 9
        run_dry(crowd.engine)
        assert tokens_of(await read(second)) == constraint.accepted == list(range(20, 29))

    asyncio.run(scenario())


def test_an_embedding_is_the_same_bits_when_it_was_preempted() -> None:
    async def scenario() -> None:
        crowd = Crowd(max_batch_tokens=2)
        second = crowd.engine.submit(range(7), greedy(0), is_pooled=True)
        crowd.step_to_preemption()
        assert crowd.engine.num_waiting == 1
        run_dry(crowd.engine)
        (event,) = await read(second)
        assert event.embedding is not None
        assert event.embedding.tobytes() == crowd.runner.embedding_of(range(7)).tobytes()
        assert crowd.observer.ends == [FinishReason.LENGTH, FinishReason.STOP]

    asyncio.run(scenario())


def test_prompt_logprobs_are_whole_when_their_sequence_was_preempted() -> None:
    async def scenario() -> None:
        params = SamplingParams(max_new_tokens=0, seed=0, num_prompt_logprobs=2)
        crowd, alone = Crowd(max_batch_tokens=2), make_engine(FakeRunner())
        second, expected = (engine.submit(range(7), params) for engine in (crowd.engine, alone))
        crowd.step_to_preemption()
        run_dry(crowd.engine)
        run_dry(alone)
        (event,), (other,) = await read(second), await read(expected)
        assert event.prompt_logprobs == other.prompt_logprobs
        assert len(event.prompt_logprobs or ()) == 7

    asyncio.run(scenario())


def test_a_preempted_sequence_is_cancelled_like_any_other() -> None:
    async def scenario() -> None:
        crowd = Crowd()
        second = crowd.engine.submit([6, 5, 4], greedy(9))
        crowd.step_to_preemption()
        second.cancel()
        crowd.engine.step()
        assert crowd.engine.num_waiting == 0
        assert reason_of(await read(second)) is FinishReason.CANCELLED
        run_dry(crowd.engine)
        assert reason_of(await read(crowd.first)) is FinishReason.LENGTH
        assert crowd.engine.num_used_blocks == 0

    asyncio.run(scenario())


def test_a_preempted_sequence_is_not_timed_out() -> None:
    async def scenario() -> None:
        crowd = Crowd()
        second = crowd.engine.submit([6, 5, 4], greedy(9))
        crowd.step_to_preemption()
        crowd.clock.advance(1000)
        run_dry(crowd.engine)
        assert reason_of(await read(second)) is FinishReason.LENGTH

    asyncio.run(scenario())
