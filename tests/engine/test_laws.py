"""The engine's laws, on random schedules of arrivals, cancellations, failures and steps."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.engine.engine import Engine
from appliance.engine.sequence import FinishReason, SamplingParams, TokenEvent
from appliance.engine.stream import SequenceStream
from tests.fakes import FakeClock, FakeRunner

MAX_PROMPT, MAX_NEW, QUEUE_TIMEOUT_S = 24, 6, 10.0
FAILURES = {FinishReason.CANCELLED, FinishReason.TIMED_OUT, FinishReason.FAILED}


@dataclass(frozen=True)
class Request:
    prompt_ids: tuple[int, ...]
    params: SamplingParams
    is_pooled: bool


@dataclass(frozen=True)
class Cancel:
    index: int  # of a request, counted round


@dataclass(frozen=True)
class Fail:
    """The next forward pass raises."""


@dataclass(frozen=True)
class Wait:
    seconds: float


@dataclass(frozen=True)
class Steps:
    count: int


Action = Request | Cancel | Fail | Wait | Steps


@dataclass(frozen=True)
class House:
    """The sizes of an engine: none may change an answer."""

    block_size: int
    num_spare_blocks: int
    max_batch_tokens: int
    max_sequences: int

    @property
    def num_blocks(self) -> int:
        return -(-(MAX_PROMPT + MAX_NEW) // self.block_size) + self.num_spare_blocks


LARGE_HOUSE = House(block_size=4, num_spare_blocks=0, max_batch_tokens=64, max_sequences=1)

params_strategy = st.builds(
    SamplingParams,
    max_new_tokens=st.integers(0, MAX_NEW),
    seed=st.integers(-(2**63), 2**64 - 1),
    temperature=st.sampled_from([0.0, 0.7, 1.0]),
    top_p=st.sampled_from([0.5, 1.0]),
    top_k=st.sampled_from([None, 5]),
    repetition_penalty=st.sampled_from([1.0, 1.3]),
    frequency_penalty=st.sampled_from([0.0, 0.5]),
    stop_token_ids=st.sampled_from([frozenset[int](), frozenset(range(8))]),
    num_logprobs=st.sampled_from([None, 0, 3]),
    num_prompt_logprobs=st.sampled_from([None, None, 2]),
)
request_strategy = st.builds(
    Request,
    prompt_ids=st.lists(st.integers(0, 63), min_size=1, max_size=MAX_PROMPT).map(tuple),
    params=params_strategy,
    is_pooled=st.sampled_from([False, False, False, True]),
)
house_strategy = st.builds(
    House,
    block_size=st.integers(1, 8),
    num_spare_blocks=st.integers(0, 12),
    max_batch_tokens=st.integers(1, 24),
    max_sequences=st.integers(1, 5),
)
arrivals_strategy = st.lists(
    request_strategy | request_strategy | st.builds(Steps, st.integers(1, 4)), max_size=14
)
schedule_strategy = st.lists(
    request_strategy
    | request_strategy
    | st.builds(Steps, st.integers(1, 4))
    | st.builds(Cancel, st.integers(0, 20))
    | st.builds(Wait, st.sampled_from([1.0, 4.0, 11.0]))
    | st.builds(Fail),
    max_size=24,
)


@dataclass
class Play:
    """An engine that is stepped by hand and checked after every step."""

    house: House
    clock: FakeClock = field(default_factory=FakeClock)
    requests: list[Request] = field(default_factory=list)
    streams: list[SequenceStream] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.runner = FakeRunner(block_size=self.house.block_size, num_blocks=self.house.num_blocks)
        self.engine = Engine(
            self.runner,
            max_batch_tokens=self.house.max_batch_tokens,
            max_sequences=self.house.max_sequences,
            max_queued=100,
            queue_timeout_s=QUEUE_TIMEOUT_S,
            clock=self.clock,
        )

    def act(self, action: Action) -> None:
        match action:
            case Request():
                self.requests.append(action)
                self.streams.append(
                    self.engine.submit(action.prompt_ids, action.params, is_pooled=action.is_pooled)
                )
            case Cancel() if self.streams:
                self.streams[action.index % len(self.streams)].cancel()
            case Fail():
                self.runner.num_failures_left = 1
            case Wait():
                self.clock.advance(action.seconds)
            case Steps():
                for _ in range(action.count):
                    self.step()
            case _:
                pass

    def step(self) -> list[TokenEvent]:
        events = self.engine.step()
        self.check()
        return events

    def check(self) -> None:
        """What holds after every step."""
        scheduler, allocator = self.engine._scheduler, self.engine._allocator
        assert self.runner.faults == []
        allocator.check(scheduler.sequences)
        assert all(not sequence.block_table for sequence in scheduler._waiting.values())
        assert all(
            len(sequence.block_table) * allocator.block_size >= sequence.max_tokens
            for sequence in scheduler._running.values()
        )
        assert scheduler.num_running <= self.house.max_sequences
        for batch in self.runner.batches[-1:]:
            assert sum(length for _, _, length in batch) <= self.house.max_batch_tokens

    def run_dry(self) -> None:
        """Every step computes at least a token, so this many steps are always enough."""
        num_steps = 1 + sum(len(r.prompt_ids) + r.params.max_new_tokens for r in self.requests)
        for _ in range(num_steps):
            self.step()
        assert self.engine.num_running == self.engine.num_waiting == 0

    async def collect(self) -> list[list[TokenEvent]]:
        return [[event async for event in stream] for stream in self.streams]


async def answer_alone(request: Request) -> list[TokenEvent]:
    play = Play(LARGE_HOUSE)
    play.act(request)
    play.run_dry()
    return (await play.collect())[0]


def content(event: TokenEvent) -> tuple[object, ...]:
    """All an event says, but for the sequence's number; floats must agree to the last bit."""
    embedding = None if event.embedding is None else event.embedding.tobytes()
    return event.token_id, event.logprobs, event.prompt_logprobs, embedding, event.finish_reason


@settings(max_examples=120, deadline=None)
@given(house=house_strategy, arrivals=arrivals_strategy)
def test_batching_never_changes_an_answer(house: House, arrivals: list[Request | Steps]) -> None:
    async def scenario() -> None:
        play = Play(house)
        for action in arrivals:
            play.act(action)
        play.run_dry()
        for request, events in zip(play.requests, await play.collect(), strict=True):
            alone = await answer_alone(request)
            assert [content(event) for event in events] == [content(event) for event in alone]

    asyncio.run(scenario())


@settings(max_examples=150, deadline=None)
@given(house=house_strategy, schedule=schedule_strategy)
def test_every_sequence_ends_in_exactly_one_final_event(
    house: House, schedule: list[Action]
) -> None:
    async def scenario() -> None:
        play = Play(house)
        for action in schedule:
            play.act(action)
        play.run_dry()
        for request, events in zip(play.requests, await play.collect(), strict=True):
            reasons = [event.finish_reason for event in events if event.finish_reason is not None]
            assert reasons == [events[-1].finish_reason]
            if events[-1].finish_reason in FAILURES:
                alone = await answer_alone(request)
                kept = [content(event) for event in events[:-1]]
                assert kept == [content(event) for event in alone][: len(kept)]
        assert sorted(play.runner.released) == sorted(s.sequence_id for s in play.streams)
        assert play.engine.num_used_blocks == 0

    asyncio.run(scenario())


@settings(max_examples=100, deadline=None)
@given(house=house_strategy, schedule=schedule_strategy)
def test_stopping_at_any_moment_ends_every_sequence_once(
    house: House, schedule: list[Action]
) -> None:
    async def scenario() -> None:
        play = Play(house)
        for action in schedule:
            play.act(action)
        play.engine.stop()
        play.check()
        for events in await play.collect():
            finals = [event for event in events if event.finish_reason is not None]
            assert finals == [events[-1]]
        assert play.engine.num_used_blocks == 0

    asyncio.run(scenario())


@settings(max_examples=100, deadline=None)
@given(house=house_strategy, schedule=schedule_strategy)
def test_a_cancelled_sequence_is_gone_after_one_step(house: House, schedule: list[Action]) -> None:
    async def scenario() -> None:
        play = Play(house)
        for action in schedule:
            play.act(action)
        for stream in play.streams:
            stream.cancel()
        events = play.step()
        assert {event.finish_reason for event in events} <= {FinishReason.CANCELLED}
        assert play.engine.num_running == play.engine.num_waiting == 0
        assert play.engine.num_used_blocks == 0

    asyncio.run(scenario())


@settings(max_examples=100, deadline=None)
@given(house=house_strategy, schedule=schedule_strategy)
def test_sequences_start_in_the_order_in_which_they_came(
    house: House, schedule: list[Action]
) -> None:
    async def scenario() -> None:
        play = Play(house)
        for action in schedule:
            play.act(action)
        play.run_dry()
        started = [
            sequence_id
            for batch in play.runner.batches
            for sequence_id, start, _ in batch
            if start == 0
        ]
        assert started == sorted(set(started))

    asyncio.run(scenario())
