"""What a sequence holds, and which of its chunks are followed by a token."""

from __future__ import annotations

import numpy as np

from appliance.engine.sequence import (
    Batch,
    Chunk,
    FinishReason,
    LogitRows,
    SamplingParams,
    Sequence,
    TokenLogprobs,
)


def make_sequence(
    *, max_new_tokens: int = 4, is_pooled: bool = False, num_prompt_logprobs: int | None = None
) -> Sequence:
    params = SamplingParams(
        max_new_tokens=max_new_tokens, seed=0, num_prompt_logprobs=num_prompt_logprobs
    )
    return Sequence(sequence_id=7, prompt_ids=(5, 6, 7), params=params, is_pooled=is_pooled)


def test_a_new_sequence_holds_its_prompt() -> None:
    sequence = make_sequence()
    assert sequence.token_ids == [5, 6, 7]
    assert (sequence.num_prompt_tokens, sequence.num_new_tokens) == (3, 0)


def test_new_tokens_count_against_the_context_unless_pooled() -> None:
    assert make_sequence(max_new_tokens=4).max_tokens == 7
    assert make_sequence(max_new_tokens=4, is_pooled=True).max_tokens == 3


def test_a_chunk_is_a_run_of_the_sequence() -> None:
    chunk = Chunk(make_sequence(), 1, 2, LogitRows.LAST)
    assert chunk.token_ids == [6, 7]
    assert Batch((chunk, chunk)).num_tokens == 4


def test_a_token_follows_the_chunk_that_reaches_the_end() -> None:
    sequence = make_sequence()
    assert not Chunk(sequence, 0, 2, LogitRows.NONE).is_sampled
    assert Chunk(sequence, 2, 1, LogitRows.LAST).is_sampled


def test_no_token_follows_when_none_is_wanted() -> None:
    assert not Chunk(make_sequence(max_new_tokens=0), 0, 3, LogitRows.NONE).is_sampled
    assert not Chunk(make_sequence(is_pooled=True), 0, 3, LogitRows.NONE).is_sampled


def test_only_the_first_event_carries_the_prompt_logprobs() -> None:
    sequence = make_sequence(num_prompt_logprobs=0)
    sequence.prompt_logprobs = [None, TokenLogprobs(6, -1.0), TokenLogprobs(7, -2.0)]
    sequence.token_ids.append(1)
    first = sequence.make_event(1, None, None)
    sequence.token_ids.append(2)
    second = sequence.make_event(2, None, None)
    assert first.prompt_logprobs == tuple(sequence.prompt_logprobs)
    assert second.prompt_logprobs is None


def test_a_prompt_of_one_token_has_logprobs_of_nothing() -> None:
    params = SamplingParams(max_new_tokens=1, seed=0, num_prompt_logprobs=2)
    sequence = Sequence(sequence_id=1, prompt_ids=(5,), params=params)
    assert sequence.make_event(1, None, None).prompt_logprobs == (None,)


def test_an_embedding_is_the_mean_of_the_hidden_states() -> None:
    sequence = make_sequence(is_pooled=True)
    sequence.hidden_sum = np.array([3.0, 6.0])
    event = sequence.make_event(None, None, FinishReason.STOP)
    assert event.embedding is not None
    assert event.embedding.dtype == np.float32
    assert event.embedding.tolist() == [1.0, 2.0]
