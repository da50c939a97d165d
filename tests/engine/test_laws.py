"""The engine's laws, on random schedules of arrivals, cancellations, failures and steps."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.engine import fairness
from appliance.engine.drafting import MAX_LENGTH
from appliance.engine.engine import Engine
from appliance.engine.sequence import FinishReason, SamplingParams, TokenEvent
from appliance.engine.stream import SequenceStream
from tests.engine.blocks import check_blocks
from tests.engine.engine_setup import EngineSetup, Request
from tests.fakes import FakeClock, FakeConstraint, FakeObserver, FakeRunner

MAX_PROMPT, MAX_NEW, QUEUE_TIMEOUT_S = 24, 12, 10.0
FAILURES = {FinishReason.CANCELLED, FinishReason.TIMED_OUT, FinishReason.FAILED}


@pytest.fixture(autouse=True, scope="module")
def _short_grace() -> Iterator[None]:
    """Sequences here are too short for an owner to get as far ahead as in real life."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fairness, "GRACE_TOKENS", 4)
        yield


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


@dataclass(frozen=True, kw_only=True)
class FakeSetup(EngineSetup):
    max_context_tokens: int = MAX_PROMPT + MAX_NEW
    memory: int | None = None  # of the model, which repeats itself with a short one


Case = tuple[FakeSetup, list[Action]]


def requests(
    *, max_prompt: int, min_new: int, stop_token_ids: list[frozenset[int]]
) -> st.SearchStrategy[Request]:
    params = st.builds(
        SamplingParams,
        max_new_tokens=st.integers(min_new, MAX_NEW),
        seed=st.integers(-(2**63), 2**64 - 1),
        temperature=st.sampled_from([0.0, 0.7, 1.0]),
        top_p=st.sampled_from([0.5, 1.0]),
        top_k=st.sampled_from([None, 5]),
        repetition_penalty=st.sampled_from([1.0, 1.3]),
        frequency_penalty=st.sampled_from([0.0, 0.5]),
        stop_token_ids=st.sampled_from(stop_token_ids),
        num_logprobs=st.sampled_from([None, 0, 3]),
        num_prompt_logprobs=st.sampled_from([None, None, 2]),
    )
    answer = st.lists(st.integers(0, 63), min_size=MAX_NEW, max_size=MAX_NEW).map(tuple)
    fresh = st.lists(st.integers(0, 63), min_size=1, max_size=max_prompt)
    related = st.builds(  # to one of two stems, so that prompts begin alike
        lambda stem, length, tail: ([*range(stem, stem + length), *tail])[:max_prompt],
        st.sampled_from([0, 32]),
        st.integers(1, max_prompt),
        st.lists(st.integers(0, 63), max_size=6),
    )
    return st.builds(
        Request,
        prompt_ids=st.one_of(fresh, related, related).map(tuple),
        params=params,
        is_pooled=st.sampled_from([False, False, False, True]),
        answer=st.none() | st.none() | answer,
        cache_salt=st.sampled_from([b"", b"", b"", b"another key"]),
        owner=st.sampled_from(["anna", "anna", "bert", "carl"]),
        priority=st.sampled_from([0, 0, 0, 1, -1]),
    )


request_strategy = requests(
    max_prompt=MAX_PROMPT, min_new=0, stop_token_ids=[frozenset(), frozenset(range(8))]
)
setup_strategy = st.builds(
    FakeSetup,
    block_size=st.integers(1, 8),
    num_spare_blocks=st.integers(0, 12),
    max_batch_tokens=st.integers(1, 24),
    max_sequences=st.integers(1, 5),
    speculates=st.booleans(),
    memory=st.sampled_from([None, 1, 2]),
)
steps_strategy = st.builds(Steps, st.integers(1, 4))
arrivals_strategy: st.SearchStrategy[list[Action]] = st.lists(
    request_strategy | request_strategy | steps_strategy, max_size=14
)
schedule_strategy: st.SearchStrategy[list[Action]] = st.lists(
    request_strategy
    | request_strategy
    | steps_strategy
    | st.builds(Cancel, st.integers(0, 20))
    | st.builds(Wait, st.sampled_from([1.0, 4.0, 11.0]))
    | st.builds(Fail),
    max_size=24,
)
# Several that come at once, start small and grow for long: a small cache overflows with them.
small_setup_strategy = st.builds(
    FakeSetup,
    block_size=st.integers(1, 4),
    num_spare_blocks=st.integers(0, 2),
    max_batch_tokens=st.integers(12, 32),
    max_sequences=st.integers(4, 8),
    speculates=st.booleans(),
    memory=st.sampled_from([None, 1]),
)
rush_strategy: st.SearchStrategy[list[Request]] = st.lists(
    requests(max_prompt=12, min_new=8, stop_token_ids=[frozenset()]), min_size=4, max_size=7
)


def cases(schedules: st.SearchStrategy[list[Action]]) -> st.SearchStrategy[Case]:
    """Draw a setup and what happens to it; every other is too small, every other has one owner."""
    rushes = st.builds(lambda rush, rest: [*rush, *rest], rush_strategy, schedules)
    all_cases = st.tuples(setup_strategy, schedules) | st.tuples(small_setup_strategy, rushes)
    return all_cases | all_cases.map(one_owner)


def one_owner(case: Case) -> Case:
    setup, actions = case
    return setup, [
        replace(action, owner="", priority=0) if isinstance(action, Request) else action
        for action in actions
    ]


@dataclass
class Trial:
    """An engine that is stepped by hand and checked after every step."""

    setup: FakeSetup
    clock: FakeClock = field(default_factory=FakeClock)
    observer: FakeObserver = field(default_factory=FakeObserver)
    requests: list[Request] = field(default_factory=list)
    streams: list[SequenceStream] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.runner = FakeRunner(
            block_size=self.setup.block_size,
            num_blocks=self.setup.num_blocks,
            memory=self.setup.memory,
        )
        self.engine = Engine(
            self.runner,
            max_batch_tokens=self.setup.max_batch_tokens,
            max_sequences=self.setup.max_sequences,
            max_queued=100,
            queue_timeout_s=QUEUE_TIMEOUT_S,
            speculates=self.setup.speculates,
            observer=self.observer,
            clock=self.clock,
        )

    def act(self, action: Action) -> None:
        match action:
            case Request():
                constraint = None if action.answer is None else FakeConstraint(action.answer)
                self.requests.append(action)
                self.streams.append(
                    self.engine.submit(
                        action.prompt_ids,
                        action.params,
                        constraint,
                        is_pooled=action.is_pooled,
                        cache_salt=action.cache_salt,
                        owner=action.owner,
                        priority=action.priority,
                    )
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
        ids_before = sorted(s.sequence_id for s in self.engine._scheduler.sequences)
        num_batches = len(self.runner.batches)
        events = self.engine.step()
        self.check()
        for batch in self.runner.batches[num_batches:]:
            self.check_batch(batch, ids_before, {e.sequence_id for e in events if is_dropped(e)})
        return events

    def check(self) -> None:
        """What holds after every step."""
        scheduler, allocator = self.engine._scheduler, self.engine._allocator
        running, waiting = scheduler._running.values(), scheduler._waiting.values()
        assert self.runner.faults == []
        check_blocks(allocator, scheduler.sequences)
        assert all(not s.block_table and not s.num_cached_tokens for s in waiting)
        for sequence in running:
            num_blocks = len(sequence.block_table)
            assert num_blocks * allocator.block_size >= sequence.num_cached_tokens
            num_drafted = MAX_LENGTH if self.setup.speculates else 0
            most = -(-(len(sequence.token_ids) + num_drafted) // allocator.block_size)
            assert num_blocks <= most
        for sequence in running:
            known = allocator._digest_of.keys() & set(sequence.block_table)
            assert {allocator._digest_of[block] for block in known} <= set(sequence.block_digests)
        assert scheduler.num_running <= self.setup.max_sequences
        by_owner: dict[tuple[str, int], list[int]] = {}
        for sequence in scheduler.sequences:
            ids = by_owner.setdefault((sequence.owner, sequence.priority), [])
            ids.append(sequence.sequence_id)
        for ids in by_owner.values():
            assert ids == sorted(ids), "an owner's running ones came before its waiting ones"
        lines = scheduler._lines._lines
        assert lines.keys() == {(priority, owner) for owner, priority in by_owner}
        assert sum(line.num_running for line in lines.values()) == len(running)
        assert {id_ for line in lines.values() for id_ in line.waiting} == scheduler._waiting.keys()

    def check_batch(
        self, batch: list[tuple[int, int, int]], ids_before: list[int], dropped_ids: set[int]
    ) -> None:
        assert sum(length for _, _, length in batch) <= self.setup.max_batch_tokens
        computed_ids = [sequence_id for sequence_id, _, _ in batch]
        assert len(computed_ids) == len(set(computed_ids))
        owners = {(r.owner, r.priority) for r in self.requests}
        if len(owners) == 1:
            oldest = next(i for i in ids_before if i not in dropped_ids or i in computed_ids)
            assert oldest in computed_ids, "the oldest always advances"

    def run_dry(self) -> None:
        """Every step computes a token of the oldest, which keeps it: so many steps are enough.

        Where owners push each other out, for each token that is computed anew one at most is
        computed again.
        """
        num_steps = 1 + sum(len(r.prompt_ids) + r.params.max_new_tokens for r in self.requests)
        num_steps *= min(len({(r.owner, r.priority) for r in self.requests}), 2)
        for _ in range(num_steps):
            self.step()
        assert self.engine.num_running == self.engine.num_waiting == 0

    async def collect(self) -> list[list[TokenEvent]]:
        return [[event async for event in stream] for stream in self.streams]


def is_dropped(event: TokenEvent) -> bool:
    return event.finish_reason in FAILURES


async def answer_alone(
    request: Request, memory: int | None = None, num_spare_blocks: int = 0
) -> list[TokenEvent]:
    trial = Trial(
        FakeSetup(
            block_size=4,
            num_spare_blocks=num_spare_blocks,
            max_batch_tokens=64,
            max_sequences=1,
            memory=memory,
        )
    )
    trial.act(request)
    trial.run_dry()
    return (await trial.collect())[0]


def content(event: TokenEvent) -> tuple[object, ...]:
    """All an event says, but for the sequence's number; floats must agree to the last bit."""
    embedding = None if event.embedding is None else event.embedding.tobytes()
    return event.token_id, event.logprobs, event.prompt_logprobs, embedding, event.finish_reason


@settings(max_examples=120, deadline=None)
@given(case=cases(arrivals_strategy))
def test_batching_never_changes_an_answer(case: Case) -> None:
    async def scenario() -> None:
        setup, arrivals = case
        trial = Trial(setup)
        for action in arrivals:
            trial.act(action)
        trial.run_dry()
        for request, events in zip(trial.requests, await trial.collect(), strict=True):
            alone = await answer_alone(request, setup.memory)
            assert [content(event) for event in events] == [content(event) for event in alone]

    asyncio.run(scenario())


@settings(max_examples=150, deadline=None)
@given(case=cases(schedule_strategy))
def test_every_sequence_ends_in_exactly_one_final_event(case: Case) -> None:
    async def scenario() -> None:
        setup, schedule = case
        trial = Trial(setup)
        for action in schedule:
            trial.act(action)
        trial.run_dry()
        for request, events in zip(trial.requests, await trial.collect(), strict=True):
            reasons = [event.finish_reason for event in events if event.finish_reason is not None]
            assert reasons == [events[-1].finish_reason]
            if events[-1].finish_reason in FAILURES:
                alone = await answer_alone(request, setup.memory)
                kept = [content(event) for event in events[:-1]]
                assert kept == [content(event) for event in alone][: len(kept)]
        assert set(trial.runner.released) == {stream.sequence_id for stream in trial.streams}
        num_released = len(trial.streams) + trial.observer.num_preemptions
        assert len(trial.runner.released) == num_released
        assert trial.engine.num_used_blocks == 0

    asyncio.run(scenario())


@settings(max_examples=100, deadline=None)
@given(case=cases(schedule_strategy))
def test_stopping_at_any_moment_ends_every_sequence_once(case: Case) -> None:
    async def scenario() -> None:
        setup, schedule = case
        trial = Trial(setup)
        for action in schedule:
            trial.act(action)
        trial.engine.stop()
        trial.check()
        for events in await trial.collect():
            finals = [event for event in events if event.finish_reason is not None]
            assert finals == [events[-1]]
        assert trial.engine.num_used_blocks == 0

    asyncio.run(scenario())


@settings(max_examples=100, deadline=None)
@given(case=cases(schedule_strategy))
def test_a_cancelled_sequence_is_gone_after_one_step(case: Case) -> None:
    async def scenario() -> None:
        setup, schedule = case
        trial = Trial(setup)
        for action in schedule:
            trial.act(action)
        for stream in trial.streams:
            stream.cancel()
        events = trial.step()
        assert {event.finish_reason for event in events} <= {FinishReason.CANCELLED}
        assert trial.engine.num_running == trial.engine.num_waiting == 0
        assert trial.engine.num_used_blocks == 0

    asyncio.run(scenario())


@settings(max_examples=100, deadline=None)
@given(case=cases(schedule_strategy))
def test_every_start_is_reported_once_in_the_order_of_the_starts(case: Case) -> None:
    async def scenario() -> None:
        setup, schedule = case
        trial = Trial(setup)
        for action in schedule:
            trial.act(action)
        trial.run_dry()
        computed = [sequence_id for batch in trial.runner.batches for sequence_id, _, _ in batch]
        started = list(dict.fromkeys(computed))
        assert trial.observer.prompts == [
            len(trial.requests[sequence_id - 1].prompt_ids) for sequence_id in started
        ]

    asyncio.run(scenario())


@settings(max_examples=100, deadline=None)
@given(case=cases(schedule_strategy))
def test_every_token_and_every_end_is_reported_once(case: Case) -> None:
    async def scenario() -> None:
        setup, schedule = case
        trial = Trial(setup)
        for action in schedule:
            trial.act(action)
        trial.engine.stop()
        answers, observer = await trial.collect(), trial.observer
        num_tokens = [sum(event.token_id is not None for event in events) for events in answers]
        assert len(observer.first_delays_s) == sum(number > 0 for number in num_tokens)
        assert len(observer.first_delays_s) + len(observer.intervals_s) == sum(num_tokens)
        assert Counter(observer.ends) == Counter(events[-1].finish_reason for events in answers)

    asyncio.run(scenario())


def test_an_engine_with_few_blocks_preempts_and_changes_no_answer() -> None:
    """What makes sure that the laws above have seen preemptions."""

    async def scenario() -> None:
        trial = Trial(
            FakeSetup(block_size=2, num_spare_blocks=0, max_batch_tokens=32, max_sequences=8)
        )
        for seed in range(8):
            params = SamplingParams(max_new_tokens=MAX_NEW, seed=seed, num_prompt_logprobs=1)
            trial.act(Request(tuple(range(seed + 1)), params))
        trial.run_dry()
        assert trial.observer.num_preemptions > 3
        for request, events in zip(trial.requests, await trial.collect(), strict=True):
            alone = await answer_alone(request)
            assert [content(event) for event in events] == [content(event) for event in alone]

    asyncio.run(scenario())


def test_owners_give_way_to_each_other_and_no_answer_changes() -> None:
    """What makes sure that the laws above have seen owners who give places up."""

    async def scenario(priority: int) -> None:
        trial = Trial(
            FakeSetup(block_size=4, num_spare_blocks=99, max_batch_tokens=32, max_sequences=4)
        )
        for seed in range(8):
            params = SamplingParams(max_new_tokens=MAX_NEW, seed=seed, num_prompt_logprobs=1)
            trial.act(Request((seed, 1), params, owner="anna"))
        trial.act(Steps(4))
        for seed in range(3):
            params = SamplingParams(max_new_tokens=MAX_NEW, seed=seed)
            trial.act(Request((seed, 2), params, owner="bert", priority=priority))
        trial.run_dry()
        assert trial.observer.num_preemptions >= 2
        for request, events in zip(trial.requests, await trial.collect(), strict=True):
            alone = await answer_alone(request)
            assert [content(event) for event in events] == [content(event) for event in alone]

    for priority in (0, 1):
        asyncio.run(scenario(priority))


def test_prompts_that_begin_alike_are_computed_once_and_answered_alike() -> None:
    """What makes sure that the laws above have seen the cache at work."""

    async def scenario() -> None:
        trial = Trial(
            FakeSetup(block_size=4, num_spare_blocks=40, max_batch_tokens=32, max_sequences=4)
        )
        params = SamplingParams(max_new_tokens=3, seed=1)
        for tail in range(6):
            trial.act(Request((*range(20), 40 + tail), params))
        trial.act(Request((*range(20), 40), params, cache_salt=b"another key"))
        trial.run_dry()
        assert trial.observer.num_reused_tokens == 5 * 20
        answers = await trial.collect()
        for request, events in zip(trial.requests, answers, strict=True):
            alone = await answer_alone(request)
            assert [content(event) for event in events] == [content(event) for event in alone]
        assert [events[0].num_reused_tokens for events in answers] == [0, 20, 20, 20, 20, 20, 0]

    asyncio.run(scenario())


def test_guesses_after_a_prompt_do_not_count_against_what_was_found_of_it() -> None:
    async def scenario() -> None:
        setup = FakeSetup(
            block_size=4, num_spare_blocks=40, max_batch_tokens=32, max_sequences=4, speculates=True
        )
        trial = Trial(setup)
        request = Request((*[1, 2, 3, 4] * 5, 1), SamplingParams(max_new_tokens=8, seed=1))
        trial.act(request)
        trial.run_dry()
        trial.act(request)
        trial.run_dry()
        assert trial.observer.num_drafted > 0
        answers = await trial.collect()
        assert [events[0].num_reused_tokens for events in answers] == [0, 20]

    asyncio.run(scenario())


def test_a_failed_pass_leaves_nothing_to_be_found() -> None:
    async def scenario() -> None:
        trial = Trial(
            FakeSetup(block_size=4, num_spare_blocks=9, max_batch_tokens=64, max_sequences=4)
        )
        request = Request(tuple(range(20)), SamplingParams(max_new_tokens=1, seed=1))
        trial.act(Fail())
        trial.act(request)
        trial.act(request)
        trial.step()
        trial.act(request)
        trial.run_dry()
        answers = await trial.collect()
        assert [events[-1].finish_reason for events in answers[:2]] == [FinishReason.FAILED] * 2
        assert answers[2][0].num_reused_tokens == 0

    asyncio.run(scenario())


def test_guesses_are_made_and_change_no_answer() -> None:
    """What makes sure that the laws above have seen guesses, right ones and wrong ones."""

    async def scenario() -> None:
        trial = Trial(
            FakeSetup(
                block_size=4,
                num_spare_blocks=40,
                max_batch_tokens=32,
                max_sequences=2,
                speculates=True,
                memory=1,
            )
        )
        for seed in range(12):
            params = SamplingParams(
                max_new_tokens=60,
                seed=seed,
                temperature=seed % 2 * 0.4,
                frequency_penalty=seed % 3 * 0.1,
                num_logprobs=2,
            )
            trial.act(Request((*range(6), *range(6)), params))
        trial.run_dry()
        assert 10 < trial.observer.num_accepted < trial.observer.num_drafted - 5
        for request, events in zip(trial.requests, await trial.collect(), strict=True):
            alone = await answer_alone(request, memory=1, num_spare_blocks=40)
            assert [content(event) for event in events] == [content(event) for event in alone]

    asyncio.run(scenario())
