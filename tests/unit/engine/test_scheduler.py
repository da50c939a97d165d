"""Who is computed next, who waits, who is refused and who ends."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.engine.kv_cache import BlockAllocator
from appliance.engine.scheduler import Scheduler, rows_needed
from appliance.engine.sequence import Batch, FinishReason, LogitRows, SamplingParams, Sequence
from appliance.errors import ContextLengthExceeded, Overloaded
from tests.engine.blocks import check_blocks
from tests.fakes import FakeClock, FakeConstraint


def make_scheduler(
    *,
    num_blocks: int = 32,
    max_batch_tokens: int = 16,
    max_sequences: int = 4,
    max_queued: int = 8,
    max_context_tokens: int | None = None,
    speculates: bool = False,
    clock: FakeClock | None = None,
) -> Scheduler:
    return Scheduler(
        BlockAllocator(num_blocks=num_blocks, block_size=4),
        max_batch_tokens=max_batch_tokens,
        max_sequences=max_sequences,
        max_queued=max_queued,
        queue_timeout_s=10.0,
        max_context_tokens=max_context_tokens,
        speculates=speculates,
        clock=clock or FakeClock(),
    )


def make_sequence(
    sequence_id: int,
    num_prompt: int,
    *,
    max_new_tokens: int = 4,
    is_pooled: bool = False,
    num_prompt_logprobs: int | None = None,
    stop_token_ids: frozenset[int] = frozenset(),
) -> Sequence:
    return Sequence(
        sequence_id=sequence_id,
        prompt_ids=tuple(range(num_prompt)),
        params=SamplingParams(
            max_new_tokens=max_new_tokens,
            seed=0,
            num_prompt_logprobs=num_prompt_logprobs,
            stop_token_ids=stop_token_ids,
        ),
        is_pooled=is_pooled,
    )


def spans(batch: Batch | None) -> list[tuple[int, int, int]]:
    """(sequence id, start, length) of each chunk."""
    assert batch is not None
    return [(chunk.sequence.sequence_id, chunk.start, chunk.length) for chunk in batch.chunks]


def advance(scheduler: Scheduler, token_id: int = 9) -> list[FinishReason | None]:
    """Compute one batch, sampling `token_id` wherever a token is due."""
    batch = scheduler.schedule()
    assert batch is not None
    return [scheduler.commit(c, token_id if c.is_sampled else None) for c in batch.chunks]


def advance_timed(scheduler: Scheduler, clock: FakeClock, token_s: float) -> Batch:
    """Compute one batch in so many seconds a token, and return it."""
    batch = advance_and_get(scheduler)
    clock.advance(batch.num_tokens * token_s)
    scheduler.learn(batch, batch.num_tokens * token_s)
    return batch


def advance_and_get(scheduler: Scheduler) -> Batch:
    """Compute one batch, and return it."""
    batch = scheduler.schedule()
    assert batch is not None
    for chunk in batch.chunks:
        scheduler.commit(chunk, 9 if chunk.is_sampled else None)
    return batch


def test_there_is_nothing_to_compute_without_sequences() -> None:
    assert make_scheduler().schedule() is None


def test_a_long_prompt_is_computed_in_chunks_of_the_budget() -> None:
    scheduler = make_scheduler(max_batch_tokens=16)
    scheduler.submit(make_sequence(1, 40))
    seen = []
    for _ in range(3):
        seen += spans(scheduler.schedule())
        advance(scheduler)
    assert seen == [(1, 0, 16), (1, 16, 16), (1, 32, 8)]


def test_decodes_come_before_prompts_and_share_the_batch() -> None:
    scheduler = make_scheduler(max_batch_tokens=8)
    scheduler.submit(make_sequence(1, 4))
    advance(scheduler)
    scheduler.submit(make_sequence(2, 20))
    assert spans(scheduler.schedule()) == [(1, 4, 1), (2, 0, 7)]


def test_beside_an_answer_prompts_are_read_in_small_pieces() -> None:
    scheduler = make_scheduler(num_blocks=512, max_batch_tokens=512)
    scheduler.submit(make_sequence(1, 4))
    advance(scheduler)
    for sequence_id in (2, 3):
        scheduler.submit(make_sequence(sequence_id, 600))
    assert spans(scheduler.schedule()) == [(1, 4, 1), (2, 0, 64)]
    scheduler.cancel(1)
    assert spans(scheduler.schedule()) == [(2, 0, 512)]


@pytest.mark.parametrize(
    ("token_s", "shortest_s", "longest_s"),
    [(0.0001, 0.0512, 0.0512), (0.001, 0.079, 0.127), (0.004, 0.079, 0.16)],
    ids=["a batch is soon read", "soon read in pieces", "slow"],
)
def test_pieces_grow_to_what_answers_bear_on_this_machine(
    token_s: float, shortest_s: float, longest_s: float
) -> None:
    clock = FakeClock()
    scheduler = make_scheduler(num_blocks=2048, max_batch_tokens=512, clock=clock)
    scheduler.submit(make_sequence(1, 4, max_new_tokens=1000))
    advance_timed(scheduler, clock, token_s)
    scheduler.submit(make_sequence(2, 1500))
    gaps_s = []
    while spans(batch := advance_timed(scheduler, clock, token_s))[-1][2] > 1:
        gaps_s.append(batch.num_tokens * token_s)
    assert len(gaps_s) > 3
    assert all(shortest_s <= round(gap_s, 6) <= longest_s for gap_s in gaps_s[1:-1])


def test_guesses_are_no_prompt_tokens_to_learn_from() -> None:
    """Where answers that guess are slow, prompts may take as long as they."""
    scheduler = make_scheduler(num_blocks=2048, max_batch_tokens=512, speculates=True)
    scheduler.submit(make_sequence(1, 20, max_new_tokens=1000))
    advance_timed(scheduler, FakeClock(), 0.001)
    while (batch := advance_and_get(scheduler)).num_tokens == 1:
        pass
    assert batch.chunks[0].draft
    scheduler.learn(batch, 0.2)
    scheduler.submit(make_sequence(2, 1500))
    assert spans(scheduler.schedule())[1] == (2, 0, 399)


def test_prompts_share_what_is_left_of_the_budget_in_order_of_arrival() -> None:
    scheduler = make_scheduler(max_batch_tokens=8)
    for sequence_id in (1, 2, 3):
        scheduler.submit(make_sequence(sequence_id, 5))
    assert spans(scheduler.schedule()) == [(1, 0, 5), (2, 0, 3)]
    advance(scheduler)
    assert spans(scheduler.schedule()) == [(1, 5, 1), (2, 3, 2), (3, 0, 5)]


def test_short_prompts_take_at_most_half_of_a_batch_from_a_long_one_shortest_first() -> None:
    scheduler = make_scheduler(max_batch_tokens=16)
    for sequence_id, length in ((1, 40), (2, 6), (3, 30), (4, 3)):
        scheduler.submit(make_sequence(sequence_id, length))
    assert spans(scheduler.schedule()) == [(1, 0, 8), (4, 0, 3), (2, 0, 5)]
    advance(scheduler)
    assert spans(scheduler.schedule()) == [(2, 5, 1), (4, 3, 1), (1, 8, 14)]


def test_prompts_of_about_the_same_length_are_read_one_after_the_other() -> None:
    scheduler = make_scheduler(max_batch_tokens=16)
    for sequence_id, length in ((1, 16), (2, 9)):
        scheduler.submit(make_sequence(sequence_id, length))
    assert spans(scheduler.schedule()) == [(1, 0, 16)]


@settings(max_examples=150, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 60) | st.integers(1, 6), min_size=1, max_size=12),
    max_batch_tokens=st.integers(4, 24),
    num_new=st.integers(1, 9),
)
def test_decodes_never_wait_and_the_oldest_prompt_is_at_most_half_as_fast_as_alone(
    lengths: list[int], max_batch_tokens: int, num_new: int
) -> None:
    """The bound on what short prompts may cost a long one; then no sequence starves."""
    scheduler = make_scheduler(
        num_blocks=400, max_batch_tokens=max_batch_tokens, max_sequences=12, max_queued=12
    )
    for sequence_id, length in enumerate(lengths):
        scheduler.submit(make_sequence(sequence_id, length, max_new_tokens=num_new))
    num_batches: Counter[int] = Counter()  # by sequence, while it was the oldest prompt
    while scheduler.has_work:
        running = list(scheduler._running.values())
        decoding = {s.sequence_id for s in running if s.num_missing_tokens == 1}
        batch = scheduler.schedule()
        assert batch is not None
        computed = {chunk.sequence.sequence_id: chunk.length for chunk in batch.chunks}
        assert decoding <= computed.keys()
        prompts = [s for s in scheduler._running.values() if s.num_missing_tokens > 1]
        if prompts:
            oldest = prompts[0]
            num_decodes = sum(c.sequence.num_missing_tokens == 1 for c in batch.chunks)
            half = -(-(max_batch_tokens - num_decodes) // 2)
            assert computed[oldest.sequence_id] >= min(half, oldest.num_missing_tokens)
            num_batches[oldest.sequence_id] += num_decodes == 0
        for chunk in batch.chunks:
            scheduler.commit(chunk, 9 if chunk.is_sampled else None)
    for sequence_id, count in num_batches.items():
        assert count <= 2 * -(-lengths[sequence_id] // max_batch_tokens)


def test_no_more_sequences_run_than_a_batch_has_tokens() -> None:
    scheduler = make_scheduler(max_batch_tokens=2, max_sequences=32)
    for sequence_id in range(4):
        scheduler.submit(make_sequence(sequence_id, 1))
    for _ in range(3):
        batch = scheduler.schedule()
        assert batch is not None
        assert batch.num_tokens <= 2
        advance(scheduler)
    assert scheduler.num_running == 2


def test_a_large_sequence_at_the_head_of_the_queue_is_not_overtaken() -> None:
    scheduler = make_scheduler(num_blocks=8)
    scheduler.submit(make_sequence(1, 16))
    scheduler.schedule()
    scheduler.submit(make_sequence(2, 28))
    scheduler.submit(make_sequence(3, 1))
    advance(scheduler)
    assert (scheduler.num_running, scheduler.num_waiting) == (1, 2)
    scheduler.cancel(1)
    assert spans(scheduler.schedule())[0] == (2, 0, 16)


def test_a_full_queue_refuses_whether_or_not_a_step_came_between() -> None:
    for num_steps in (0, 1):
        scheduler = make_scheduler(max_sequences=1, max_queued=1)
        scheduler.submit(make_sequence(1, 4))
        for _ in range(num_steps):
            scheduler.schedule()
        scheduler.submit(make_sequence(2, 4))
        with pytest.raises(Overloaded, match="busy with 2 completions"):
            scheduler.submit(make_sequence(3, 4))


def test_without_a_queue_an_idle_scheduler_still_takes_a_sequence() -> None:
    scheduler = make_scheduler(max_sequences=1, max_queued=0)
    scheduler.submit(make_sequence(1, 4))
    with pytest.raises(Overloaded):
        scheduler.submit(make_sequence(2, 4))


def test_a_sequence_that_could_never_fit_the_cache_is_refused() -> None:
    scheduler = make_scheduler(num_blocks=4)
    scheduler.submit(make_sequence(1, 12, max_new_tokens=4))
    with pytest.raises(ContextLengthExceeded, match=r"13 tokens and 4 new ones .* holds 16"):
        scheduler.submit(make_sequence(2, 13, max_new_tokens=4))


def test_a_sequence_beyond_the_model_s_context_is_refused() -> None:
    scheduler = make_scheduler(max_context_tokens=10)
    with pytest.raises(ContextLengthExceeded, match=r"10 tokens and 1 new .* holds 10"):
        scheduler.submit(make_sequence(1, 10, max_new_tokens=1))


def test_a_sequence_that_waits_too_long_expires() -> None:
    clock = FakeClock()
    scheduler = make_scheduler(max_sequences=1, clock=clock)
    scheduler.submit(make_sequence(1, 4))
    scheduler.submit(make_sequence(2, 4))
    clock.advance(1)
    scheduler.submit(make_sequence(3, 4))
    scheduler.schedule()
    clock.advance(9)
    assert [sequence.sequence_id for sequence in scheduler.expire()] == [2]
    assert (scheduler.num_running, scheduler.num_waiting) == (1, 1)


def make_crowd(
    num_sequences: int,
    *,
    num_blocks: int,
    max_batch_tokens: int = 16,
    clock: FakeClock | None = None,
) -> tuple[Scheduler, list[Sequence]]:
    """Sequences of 3 tokens that become 12: one block each at first, three at last."""
    scheduler = make_scheduler(
        num_blocks=num_blocks, max_batch_tokens=max_batch_tokens, clock=clock
    )
    sequences = [make_sequence(n, 3, max_new_tokens=9) for n in range(1, num_sequences + 1)]
    for sequence in sequences:
        scheduler.submit(sequence)
    return scheduler, sequences


def advance_to_preemption(scheduler: Scheduler) -> Batch:
    """Compute until a sequence is preempted; the batch, still to compute, that it made room for."""
    for _ in range(100):
        batch = scheduler.schedule()
        assert batch is not None
        if batch.preempted:
            return batch
        for chunk in batch.chunks:
            scheduler.commit(chunk, 9 if chunk.is_sampled else None)
    raise AssertionError("no sequence was preempted")


def ids(sequences: Iterable[Sequence]) -> list[int]:
    return [sequence.sequence_id for sequence in sequences]


def test_a_running_sequence_grows_by_a_block_at_a_time() -> None:
    scheduler, _ = make_crowd(1, num_blocks=3)
    used = []
    for _ in range(9):
        scheduler.schedule()
        used.append(scheduler.allocator.num_used_blocks)
        advance(scheduler)
    assert used == [1, 1, 2, 2, 2, 2, 3, 3, 3]


def test_sequences_that_may_grow_large_run_together() -> None:
    scheduler = make_scheduler(num_blocks=32)
    for sequence_id in range(4):
        scheduler.submit(make_sequence(sequence_id, 4, max_new_tokens=124))
    advance(scheduler)
    assert scheduler.num_running == 4


def test_a_sequence_is_admitted_only_if_a_block_stays_free_for_each_that_runs() -> None:
    scheduler = make_scheduler(num_blocks=6, max_batch_tokens=32)
    for sequence_id, num_prompt in ((1, 4), (2, 4), (3, 12)):
        scheduler.submit(make_sequence(sequence_id, num_prompt))
    assert spans(scheduler.schedule()) == [(1, 0, 4), (2, 0, 4)]  # four free, the third needs three
    scheduler.cancel(1)
    assert spans(scheduler.schedule()) == [(2, 0, 4), (3, 0, 12)]


def test_when_no_block_is_free_the_youngest_makes_room() -> None:
    scheduler, (first, second) = make_crowd(2, num_blocks=4)
    batch = advance_to_preemption(scheduler)
    assert batch.preempted == (second,)
    assert spans(batch) == [(1, 8, 1)]
    assert (len(first.block_table), second.block_table) == (3, [])
    assert (second.num_cached_tokens, second.num_new_tokens) == (0, 6)
    check_blocks(scheduler.allocator, [first])


def test_a_youngest_sequence_that_outgrows_its_blocks_makes_room_itself() -> None:
    scheduler = make_scheduler(num_blocks=4)
    scheduler.submit(make_sequence(1, 8))
    scheduler.submit(make_sequence(2, 3))
    batch = advance_to_preemption(scheduler)
    assert ids(batch.preempted) == [2]
    assert spans(batch) == [(1, 9, 1)]
    assert scheduler.allocator.num_free_blocks == 1


def test_the_preempted_wait_in_order_of_arrival_before_those_that_never_ran() -> None:
    scheduler, _ = make_crowd(4, num_blocks=8)
    scheduler.submit(make_sequence(5, 1))
    batch = advance_to_preemption(scheduler)
    assert ids(batch.preempted) == [4, 3]
    assert spans(batch) == [(1, 8, 1), (2, 8, 1)]
    assert ids(scheduler.sequences) == [1, 2, 3, 4, 5]


def test_the_preempted_computes_all_its_tokens_again_and_goes_on() -> None:
    scheduler, (first, second) = make_crowd(2, num_blocks=4, max_batch_tokens=8)
    advance_to_preemption(scheduler)
    while first.num_new_tokens < 9:
        advance(scheduler)
    batch = advance_and_get(scheduler)
    assert spans(batch) == [(2, 0, 8)]
    assert batch.started == ()
    assert spans(scheduler.schedule()) == [(2, 8, 1)]
    assert advance(scheduler, token_id=7) == [None]
    assert second.token_ids[3:] == [9, 9, 9, 9, 9, 9, 7]


def test_a_sequence_is_preempted_in_the_middle_of_its_prompt() -> None:
    scheduler = make_scheduler(num_blocks=6, max_batch_tokens=2)
    first, second = make_sequence(1, 3, max_new_tokens=9), make_sequence(2, 14, is_pooled=True)
    scheduler.submit(first)
    scheduler.submit(second)
    second.hidden_sum = np.ones(8)
    batch = advance_to_preemption(scheduler)
    assert batch.preempted == (second,)
    assert second.num_cached_tokens == 0
    assert second.hidden_sum is None
    while first.num_new_tokens < 9:
        advance(scheduler)
    assert spans(scheduler.schedule()) == [(2, 0, 2)]


def test_a_batch_names_those_that_start_with_it() -> None:
    scheduler, (first, second) = make_crowd(2, num_blocks=4, max_batch_tokens=3)
    assert advance_and_get(scheduler).started == (first,)
    assert advance_and_get(scheduler).started == (second,)
    assert advance_and_get(scheduler).started == ()


def test_a_preempted_sequence_does_not_expire() -> None:
    clock = FakeClock()
    scheduler, _ = make_crowd(2, num_blocks=4, clock=clock)
    advance_to_preemption(scheduler)
    scheduler.submit(make_sequence(3, 1))
    clock.advance(100)
    assert ids(scheduler.expire()) == [3]
    assert ids(scheduler.sequences) == [1, 2]


def test_a_preempted_sequence_can_be_cancelled() -> None:
    scheduler, (first, _) = make_crowd(2, num_blocks=4)
    advance_to_preemption(scheduler)
    assert scheduler.cancel(2)
    check_blocks(scheduler.allocator, [first])
    assert (scheduler.num_running, scheduler.num_waiting) == (1, 0)


@pytest.mark.parametrize("num_steps", [0, 1, 3])
def test_cancelling_frees_the_blocks_at_every_stage(num_steps: int) -> None:
    scheduler = make_scheduler(max_batch_tokens=8)
    scheduler.submit(make_sequence(1, 12))
    for _ in range(num_steps):  # queued, in prefill, decoding
        advance(scheduler)
    assert scheduler.cancel(1)
    assert not scheduler.cancel(1)
    assert scheduler.allocator.num_used_blocks == 0
    assert not scheduler.has_work


def test_a_chunk_whose_sequence_was_dropped_meanwhile_is_passed_over() -> None:
    scheduler = make_scheduler()
    sequence = make_sequence(1, 4)
    scheduler.submit(sequence)
    batch = scheduler.schedule()
    assert batch is not None
    scheduler.cancel(1)
    assert scheduler.commit(batch.chunks[0], 9) is None
    assert sequence.num_new_tokens == 0


def test_a_sequence_ends_at_its_last_new_token() -> None:
    scheduler = make_scheduler()
    scheduler.submit(make_sequence(1, 4, max_new_tokens=2))
    assert advance(scheduler) == [None]
    assert advance(scheduler) == [FinishReason.LENGTH]
    assert scheduler.allocator.num_used_blocks == 0


def test_a_stop_token_ends_a_sequence_even_as_its_last_token() -> None:
    scheduler = make_scheduler()
    scheduler.submit(make_sequence(1, 4, max_new_tokens=1, stop_token_ids=frozenset({9})))
    assert advance(scheduler, token_id=9) == [FinishReason.STOP]


def test_a_complete_grammar_ends_a_sequence() -> None:
    scheduler = make_scheduler()
    sequence = make_sequence(1, 4)
    sequence.constraint = FakeConstraint([9])
    scheduler.submit(sequence)
    sequence.constraint.accept(9)
    assert advance(scheduler, token_id=9) == [FinishReason.STOP]


def test_a_sequence_without_new_tokens_ends_with_its_prompt() -> None:
    scheduler = make_scheduler(max_batch_tokens=16)
    scheduler.submit(make_sequence(1, 20, max_new_tokens=0))
    assert advance(scheduler) == [None]
    assert advance(scheduler) == [FinishReason.LENGTH]


def test_a_pooled_sequence_stops_with_its_prompt() -> None:
    scheduler = make_scheduler()
    scheduler.submit(make_sequence(1, 4, is_pooled=True))
    assert advance(scheduler) == [FinishReason.STOP]


def rows_of(sequence: Sequence) -> list[LogitRows]:
    """The rows asked for in the chunks of a prompt of 20 tokens, 16 tokens a batch."""
    scheduler = make_scheduler(max_batch_tokens=16)
    scheduler.submit(sequence)
    rows = []
    for _ in range(2):
        batch = scheduler.schedule()
        assert batch is not None
        rows += [chunk.rows for chunk in batch.chunks]
        advance(scheduler)
    return rows


def test_logits_are_asked_for_only_where_they_are_read() -> None:
    assert rows_of(make_sequence(1, 20)) == [LogitRows.NONE, LogitRows.LAST]
    assert rows_of(make_sequence(1, 20, max_new_tokens=0)) == [LogitRows.NONE, LogitRows.NONE]
    assert rows_of(make_sequence(1, 20, is_pooled=True)) == [LogitRows.NONE, LogitRows.NONE]
    assert rows_of(make_sequence(1, 20, num_prompt_logprobs=0)) == [LogitRows.ALL, LogitRows.ALL]
    assert rows_of(make_sequence(1, 17, num_prompt_logprobs=0)) == [LogitRows.ALL, LogitRows.LAST]


def test_what_a_preempted_sequence_said_of_its_prompt_is_not_asked_for_again() -> None:
    sequence = make_sequence(1, 20, num_prompt_logprobs=0)
    sequence.prompt_logprobs = [None] * 12  # row 11 is the next to be read
    assert rows_needed(sequence, 0, 11) is LogitRows.NONE
    assert rows_needed(sequence, 0, 12) is LogitRows.ALL
    sequence.prompt_logprobs = [None] * 20
    sequence.token_ids.append(9)
    assert rows_needed(sequence, 0, 20) is LogitRows.NONE
    assert rows_needed(sequence, 0, 21) is LogitRows.LAST
