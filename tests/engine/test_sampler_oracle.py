"""The sampler keeps, weighs and penalises what transformers' own logits processors do."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from appliance.engine.sampler import adjust, candidates
from appliance.engine.sequence import FloatArray, SamplingParams, Sequence

VOCAB_SIZE = 200


def probabilities_of_transformers(
    logits: FloatArray, prompt_ids: list[int], params: SamplingParams
) -> FloatArray:
    processors = LogitsProcessorList()
    if params.repetition_penalty != 1.0:
        processors.append(RepetitionPenaltyLogitsProcessor(params.repetition_penalty))
    if params.temperature != 1.0:
        processors.append(TemperatureLogitsWarper(params.temperature))
    if params.top_k is not None:
        processors.append(TopKLogitsWarper(params.top_k))
    if params.top_p < 1.0:
        processors.append(TopPLogitsWarper(params.top_p))
    if params.min_p > 0.0:
        processors.append(MinPLogitsWarper(params.min_p))
    scores = processors(torch.LongTensor([prompt_ids]), torch.from_numpy(logits.copy())[None])
    probabilities: FloatArray = torch.softmax(scores[0], dim=-1).numpy()
    return probabilities


def probabilities_of_ours(
    logits: FloatArray, prompt_ids: list[int], params: SamplingParams
) -> FloatArray:
    sequence = Sequence(sequence_id=1, prompt_ids=tuple(prompt_ids), params=params)
    adjusted = adjust(logits, sequence)
    token_ids, weights = candidates(adjusted, float(adjusted.max()), params)
    probabilities = np.zeros(len(logits), dtype=np.float32)
    kept = np.arange(len(logits)) if token_ids is None else token_ids
    probabilities[kept] = weights / weights.sum()
    return probabilities


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    spread=st.sampled_from([0.3, 2.0, 8.0]),
    temperature=st.sampled_from([0.2, 0.7, 1.0, 1.8]),
    top_k=st.sampled_from([None, 1, 7, 60, 200]),
    top_p=st.sampled_from([0.05, 0.5, 0.9, 0.99, 1.0]),
    min_p=st.sampled_from([0.0, 0.02, 0.3, 1.0]),
    repetition_penalty=st.sampled_from([1.0, 0.8, 1.3]),
)
def test_every_mix_of_filters_gives_the_probabilities_of_transformers(
    seed: int,
    spread: float,
    temperature: float,
    top_k: int | None,
    top_p: float,
    min_p: float,
    repetition_penalty: float,
) -> None:
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, spread, VOCAB_SIZE).astype(np.float32)
    prompt_ids = [int(token_id) for token_id in generator.integers(0, VOCAB_SIZE, 20)]
    params = SamplingParams(
        max_new_tokens=1,
        seed=0,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
    )
    ours = probabilities_of_ours(logits, prompt_ids, params)
    theirs = probabilities_of_transformers(logits, prompt_ids, params)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("top_k", [2, 3])
def test_ties_at_the_edge_of_top_k_stay_as_in_transformers(top_k: int) -> None:
    logits = np.array([1, 3, 2, 2, 2, 0], dtype=np.float32)
    params = SamplingParams(max_new_tokens=1, seed=0, top_k=top_k)
    ours = probabilities_of_ours(logits, [0], params)
    np.testing.assert_allclose(ours, probabilities_of_transformers(logits, [0], params), rtol=1e-5)
