"""Owners share the engine evenly, higher priorities come first, and one owner alone is FIFO."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.engine import fairness
from appliance.engine.engine import Engine
from appliance.engine.fairness import GRACE_TOKENS
from appliance.engine.kv_cache import BlockAllocator
from appliance.engine.scheduler import Scheduler
from appliance.engine.sequence import FinishReason, SamplingParams, Sequence
from appliance.errors import Overloaded
from tests.fakes import FakeClock, FakeRunner

if TYPE_CHECKING:
    from collections.abc import Iterable

    from appliance.engine.sequence import Batch


class House:
    """A scheduler whose batches are computed by hand, and what each owner got of it."""

    def __init__(
        self,
        scheduler_type: type[Scheduler] = Scheduler,
        *,
        num_blocks: int = 4096,
        max_batch_tokens: int = 64,
        max_sequences: int = 8,
        max_queued: int = 1000,
        shares_prefixes: bool = False,
    ) -> None:
        self.clock = FakeClock()
        self.scheduler = scheduler_type(
            BlockAllocator(num_blocks=num_blocks, block_size=4, shares_prefixes=shares_prefixes),
            max_batch_tokens=max_batch_tokens,
            max_sequences=max_sequences,
            max_queued=max_queued,
            queue_timeout_s=60.0,
            clock=self.clock,
        )
        self.num_served: Counter[str] = Counter()  # tokens, each once
        self.num_computed = 0  # tokens, as often as they are computed
        self.preempted: list[int] = []
        self.ended: list[int] = []
        self._ids = count(1)
        self._seen: Counter[int] = Counter()  # by sequence: how many of its tokens were computed

    def submit(
        self, owner: str = "", *, num_prompt: int = 4, num_new: int = 4, priority: int = 0
    ) -> Sequence:
        sequence_id = next(self._ids)
        sequence = Sequence(
            sequence_id=sequence_id,
            prompt_ids=tuple(range(1000 * sequence_id, 1000 * sequence_id + num_prompt)),
            params=SamplingParams(max_new_tokens=num_new, seed=0),
            owner=owner,
            priority=priority,
        )
        self.scheduler.submit(sequence)
        return sequence

    def step(self) -> Batch | None:
        batch = self.scheduler.schedule()
        if batch is None:
            return None
        self.preempted += [sequence.sequence_id for sequence in batch.preempted]
        self.num_computed += batch.num_tokens
        for chunk in batch.chunks:
            sequence = chunk.sequence
            end, seen = chunk.start + chunk.length, self._seen[sequence.sequence_id]
            reason = self.scheduler.commit(chunk, 9 if chunk.is_sampled else None)
            self.num_served[sequence.owner] += max(end - max(seen, chunk.start), 0)
            self._seen[sequence.sequence_id] = max(end, seen)
            if reason is not None:
                self.ended.append(sequence.sequence_id)
        return batch

    def steps(self, number: int) -> None:
        for _ in range(number):
            self.step()

    def run_dry(self) -> None:
        while self.scheduler.has_work:
            self.step()

    def run_until_end_of(self, sequence: Sequence) -> None:
        while sequence.sequence_id not in self.ended:
            self.step()

    def running(self) -> Counter[str]:
        return Counter(s.owner for s in self.scheduler._running.values())


class InOrderOfArrival(Scheduler):
    """The scheduler as it was before there were owners."""

    def _grow(self) -> list[Sequence]:
        preempted: list[Sequence] = []
        for sequence in list(self._running.values()):
            while sequence.sequence_id in self._running and not self.allocator.allocate(sequence):
                youngest = next(reversed(self._running.values()))
                self._preempt(youngest)
                preempted.append(youngest)
        return preempted

    def _admit(self) -> list[Sequence]:
        num_places = min(self.max_sequences, self.max_batch_tokens)
        while self._waiting and len(self._running) < num_places:
            sequence = next(iter(self._waiting.values()))
            if not self.allocator.allocate(sequence, num_spare=len(self._running)):
                break
            self._num_reused_tokens += sequence.num_cached_tokens
            self._running[sequence.sequence_id] = self._waiting.pop(sequence.sequence_id)
            self._lines.start(sequence)
        return []


@dataclass(frozen=True)
class Arrival:
    num_prompt: int
    num_new: int
    num_steps_before: int


def schedule_of(
    scheduler_type: type[Scheduler], sizes: tuple[int, int, int], arrivals: list[Arrival]
) -> list[object]:
    """All that a scheduler does with arrivals: its batches, who is preempted, who expires."""
    num_blocks, max_batch_tokens, max_sequences = sizes
    house = House(
        scheduler_type,
        num_blocks=num_blocks,
        max_batch_tokens=max_batch_tokens,
        max_sequences=max_sequences,
        max_queued=4,
        shares_prefixes=num_blocks % 2 == 0,
    )
    seen: list[object] = []

    def step() -> None:
        batch = house.step()
        if batch is not None:
            seen.append([(c.sequence.sequence_id, *c[1:]) for c in batch.chunks])
            seen.append([s.sequence_id for s in batch.preempted])
        house.clock.advance(9.0)
        seen.append([s.sequence_id for s in house.scheduler.expire()])

    for arrival in arrivals:
        for _ in range(arrival.num_steps_before):
            step()
        try:
            house.submit(num_prompt=arrival.num_prompt, num_new=arrival.num_new)
        except Overloaded:
            seen.append("refused")
    while house.scheduler.has_work:
        step()
    return seen


@settings(max_examples=200, deadline=None)
@given(
    sizes=st.tuples(st.integers(12, 40), st.integers(2, 40), st.integers(1, 6)),
    arrivals=st.lists(
        st.builds(Arrival, st.integers(1, 30), st.integers(0, 18), st.sampled_from([0, 0, 1, 3])),
        max_size=14,
    ),
)
def test_one_owner_alone_is_served_exactly_in_order_of_arrival(
    sizes: tuple[int, int, int], arrivals: list[Arrival]
) -> None:
    assert schedule_of(Scheduler, sizes, arrivals) == schedule_of(InOrderOfArrival, sizes, arrivals)


def keep_busy(house: House, demand: dict[str, int], num_steps: int, lengths: list[int]) -> None:
    """Have each owner keep so many sequences here, of the same lengths in the same order."""
    numbers: Counter[str] = Counter()
    for _ in range(num_steps):
        here = Counter(s.owner for s in house.scheduler.sequences)
        for owner, number in demand.items():
            for _ in range(number - here[owner]):
                length = lengths[numbers[owner] % len(lengths)]
                house.submit(owner, num_prompt=1 + length // 3, num_new=1 + length)
                numbers[owner] += 1
        house.step()


@settings(max_examples=25, deadline=None)
@given(
    num_equals=st.integers(2, 4),
    num_more=st.integers(1, 8),
    num_greedy=st.integers(40, 120),
    max_sequences=st.sampled_from([8, 12, 16]),
    lengths=st.lists(st.integers(1, 300), min_size=1, max_size=5),
    greedy_first=st.booleans(),
)
def test_owners_of_equal_demand_get_their_share_beside_a_greedy_one(
    num_equals: int,
    num_more: int,
    num_greedy: int,
    max_sequences: int,
    lengths: list[int],
    greedy_first: bool,
) -> None:
    num_each = max_sequences // (num_equals + 1) + num_more  # enough to use its share
    house = House(max_sequences=max_sequences)
    if greedy_first:
        keep_busy(house, {"greedy": num_greedy}, 200, [300])
    house.num_served.clear()
    equals = [f"owner {number}" for number in range(num_equals)]
    keep_busy(house, dict.fromkeys(equals, num_each) | {"greedy": num_greedy}, 3000, lengths)
    share = house.num_served.total() / (num_equals + 1)
    for owner in equals:
        assert house.num_served[owner] >= 0.8 * share


def test_a_client_with_one_request_at_a_time_hardly_waits_behind_a_greedy_one() -> None:
    """It could use an eighth of the places, and gets most of what it has alone."""
    house = House(max_sequences=8)
    keep_busy(house, {"greedy": 100}, 300, [500])
    house.num_served.clear()
    keep_busy(house, {"greedy": 100, "modest": 1}, 3000, [60])
    alone = House(max_sequences=8)
    keep_busy(alone, {"modest": 1}, 3000, [60])
    assert house.num_served["modest"] >= 0.8 * alone.num_served["modest"]


def test_an_owner_who_comes_gets_a_place_at_once_and_half_of_them_soon() -> None:
    house = House(max_sequences=8)
    for _ in range(20):
        house.submit("greedy", num_new=4000)
    house.steps(100)
    for _ in range(20):
        house.submit("modest", num_new=4000)
    house.step()
    assert house.running() == {"greedy": 7, "modest": 1}
    house.steps(400)
    assert house.running() == {"greedy": 4, "modest": 4}
    num_preempted = len(house.preempted)
    house.steps(1000)
    assert len(house.preempted) == num_preempted == 4


def test_a_prompt_need_not_wait_for_all_prompts_of_a_greedy_owner() -> None:
    house = House(max_sequences=8, max_batch_tokens=64)
    for _ in range(7):
        house.submit("greedy", num_prompt=900)
    house.step()
    modest = house.submit("modest", num_prompt=900)
    house.steps(31)
    assert modest.num_new_tokens > 0


@settings(max_examples=60, deadline=None)
@given(
    num_owners=st.integers(2, 6),
    max_sequences=st.integers(1, 12),
    lengths=st.lists(st.integers(1, 200), min_size=1, max_size=5),
    demand=st.lists(st.integers(1, 40), min_size=6, max_size=6),
)
def test_less_is_computed_again_than_is_computed_once(
    num_owners: int, max_sequences: int, lengths: list[int], demand: list[int]
) -> None:
    house = House(max_sequences=max_sequences)
    owners = [f"owner {number}" for number in range(num_owners)]
    keep_busy(house, dict(zip(owners, demand, strict=False)), 600, lengths)
    assert house.num_computed <= 2 * house.num_served.total()


def test_the_owner_served_least_is_admitted_first() -> None:
    house = House(max_sequences=1)
    house.submit("anna", num_prompt=30, num_new=1)
    for owner in ("anna", "bert", "anna", "bert"):
        house.submit(owner, num_prompt=4, num_new=1)
    house.run_dry()
    assert house.ended == [1, 3, 5, 2, 4]


def test_places_that_are_free_at_once_go_round() -> None:
    house = House(max_sequences=4)
    for owner in ("anna", "anna", "anna", "anna", "bert", "bert", "carl"):
        house.submit(owner)
    house.step()
    assert house.running() == {"anna": 2, "bert": 1, "carl": 1}


def test_idleness_saves_up_no_more_than_a_grace() -> None:
    house = House(max_sequences=2)
    house.submit("idle", num_new=1)
    house.submit("busy", num_new=3000)
    house.submit("busy", num_new=3000)
    house.steps(1000)
    house.submit("idle", num_new=3000)
    house.submit("idle", num_new=3000)
    house.num_served.clear()
    house.steps(1000)
    assert abs(house.num_served["idle"] - house.num_served["busy"]) <= 2 * GRACE_TOKENS


def test_leaving_for_a_moment_pays_off_no_debt() -> None:
    house = House(max_sequences=1)
    debt = house.submit("anna", num_prompt=4, num_new=900)
    house.submit("bert", num_new=1)
    house.run_until_end_of(debt)
    house.submit("anna", num_new=1)
    house.submit("bert", num_new=300)
    house.submit("bert", num_new=300)
    house.run_dry()
    assert house.ended == [1, 2, 4, 5, 3]


def test_a_higher_priority_is_served_first_and_a_lower_one_in_the_end() -> None:
    house = House(max_sequences=2)
    for priority in (0, 0, -1, 5, 1):
        house.submit(f"owner {priority}", priority=priority)
    house.run_dry()
    assert house.ended == [4, 5, 1, 2, 3]


def test_a_higher_priority_takes_a_place_from_the_lowest() -> None:
    house = House(max_sequences=2)
    low, middle = house.submit("low", priority=-1, num_new=50), house.submit("middle", num_new=50)
    house.steps(10)
    house.submit("high", priority=1)
    batch = house.step()
    assert batch is not None
    assert batch.preempted == (low,)
    assert house.running() == {"middle": 1, "high": 1}
    house.run_dry()
    assert house.ended == [3, 2, 1]
    assert low.num_new_tokens == middle.num_new_tokens == 50


def test_a_higher_priority_s_prompt_is_read_before_others() -> None:
    house = House(max_batch_tokens=16)
    house.submit("anna", num_prompt=200)
    house.step()
    urgent = house.submit("anna", num_prompt=32, priority=1)
    house.steps(2)
    assert urgent.num_cached_tokens == 32


def test_when_blocks_run_out_the_owner_served_most_makes_room() -> None:
    house = House(num_blocks=12, max_sequences=4)
    house.submit("greedy", num_prompt=12, num_new=20)
    house.submit("greedy", num_prompt=8, num_new=20)
    house.step()
    house.submit("modest", num_prompt=4, num_new=20)
    while not house.preempted:
        house.step()
    assert house.preempted == [2]


def fill(house: House, *owners: str, priority: int = 0) -> list[Sequence]:
    return [house.submit(owner, priority=priority) for owner in owners]


def test_a_full_queue_is_not_full_for_an_owner_with_fewer() -> None:
    house = House(max_sequences=1, max_queued=3)
    sequences = fill(house, "greedy", "greedy", "greedy", "greedy")
    house.step()
    fill(house, "modest", "modest")
    assert house.scheduler.take_displaced() == [sequences[3], sequences[2]]
    for owner in ("modest", "greedy"):
        with pytest.raises(Overloaded):
            house.submit(owner)
    assert house.scheduler.num_running + house.scheduler.num_waiting == 4
    assert house.scheduler.take_displaced() == []


def test_a_full_queue_takes_a_higher_priority_in_place_of_a_lower() -> None:
    house = House(max_sequences=1, max_queued=1)
    fill(house, "low")
    house.step()
    (waiting,) = fill(house, "low")
    fill(house, "high", priority=1)
    assert house.scheduler.take_displaced() == [waiting]
    with pytest.raises(Overloaded):
        house.submit("low")


def test_those_whose_tokens_were_read_keep_their_places_in_the_queue() -> None:
    house = House(max_sequences=1, max_queued=2)
    fill(house, "low")
    house.step()
    fill(house, "high", "high", priority=1)
    house.step()
    assert house.preempted == [1]
    with pytest.raises(Overloaded):
        house.submit("high", priority=1)


def test_an_owner_who_left_is_forgotten_with_the_last_of_its_priority() -> None:
    house = House()
    for owner in ("anna", "bert"):
        house.submit(owner, num_new=50)
    house.submit("carl", priority=1)
    house.run_dry()
    lines = house.scheduler._lines
    assert not lines._lines
    assert not lines._num_served
    assert not lines._levels


def test_no_more_owners_are_remembered_than_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fairness, "MAX_REMEMBERED", 3)
    house = House()
    house.submit("stays", num_new=500)
    for number in range(9):
        house.submit(f"comes and goes {number}")
        house.steps(8)
    assert [owner[-1] for _, owner in house.scheduler._lines._num_served] == ["6", "7", "8"]


def final_reasons(engine: Engine, owners: Iterable[str]) -> list[FinishReason | None]:
    async def scenario() -> list[FinishReason | None]:
        params = SamplingParams(max_new_tokens=2, seed=0)
        streams = [engine.submit([1, 2], params, owner=owner) for owner in owners]
        while engine.num_running or engine.num_waiting:
            engine.step()
        return [[event async for event in stream][-1].finish_reason for stream in streams]

    return asyncio.run(scenario())


def test_a_displaced_sequence_ends_and_says_so() -> None:
    engine = Engine(
        FakeRunner(), max_batch_tokens=16, max_sequences=1, max_queued=1, queue_timeout_s=10.0
    )
    reasons = final_reasons(engine, ["greedy", "greedy", "modest"])
    assert reasons == [FinishReason.LENGTH, FinishReason.DISPLACED, FinishReason.LENGTH]
