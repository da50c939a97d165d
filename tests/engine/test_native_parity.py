"""The native engine computes what transformers computes, as closely as bfloat16 allows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.engine.native_harness import (
    BLOCK_SIZE,
    QUANTIZATIONS,
    embedded_model,
    native_runner,
    save_rounded_model,
)
from tests.engine.runner_harness import (
    Sequences,
    generate_greedily,
    load_reference,
    random_tokens,
    reference_logits,
    run_chunks,
    run_decode,
    torch_runner,
)
from tests.engine.test_runner_parity import MODELS

if TYPE_CHECKING:
    from pathlib import Path

    from appliance.engine.runner import Runner
    from appliance.engine.sequence import FloatArray

NUM_TOKENS = 120  # longer than every window and every trained context of MODELS
# Errors over the logits' standard deviation: what the formats cost with these small, wild models.
# At most half as much again as the worst of them shows.
TOLERANCES = {"none": 0.0195, "int8": 0.097, "int4": 0.6}
EMBEDDED_TOLERANCES = {"none": 0.008, "int8": 0.05, "int4": 0.25}


def relative_error(logits: FloatArray, expected: FloatArray) -> float:
    assert logits.shape == expected.shape
    return float((logits - expected).std() / expected.std())


def run_whole(runner: Runner, token_ids: list[int]) -> FloatArray:
    sequences = Sequences(block_size=BLOCK_SIZE)
    return run_chunks(runner, sequences.make(token_ids), [len(token_ids)])


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
@pytest.mark.parametrize("name", MODELS)
def test_logits_agree_with_transformers(name: str, quantization: str, tmp_path: Path) -> None:
    save_rounded_model(MODELS[name], tmp_path)
    token_ids = random_tokens(NUM_TOKENS)
    expected = reference_logits(load_reference(tmp_path), token_ids)
    runner, sequences = native_runner(tmp_path, quantization=quantization), Sequences(block_size=16)
    whole = run_chunks(runner, sequences.make(token_ids), [NUM_TOKENS])
    decoded = run_decode(runner, sequences.make(token_ids), 70)
    chunked = run_chunks(runner, sequences.make(token_ids), [5, 1, 26, 40, 1, 47])
    assert relative_error(whole, expected) < TOLERANCES[quantization]
    assert decoded.tobytes() == whole.tobytes()
    assert chunked.tobytes() == whole.tobytes()


@pytest.mark.parametrize("name", ["grouped-query", "qk-norm, bias, windows by name"])
def test_the_native_engine_is_no_less_exact_than_torch_in_bfloat16(
    name: str, tmp_path: Path
) -> None:
    save_rounded_model(MODELS[name], tmp_path)
    token_ids = random_tokens(NUM_TOKENS)
    expected = reference_logits(load_reference(tmp_path), token_ids)
    ours = run_whole(native_runner(tmp_path), token_ids)
    theirs = run_whole(torch_runner(tmp_path, dtype="bfloat16", block_size=16), token_ids)
    assert relative_error(ours, expected) < relative_error(theirs, expected)


def test_weights_stored_in_float32_are_rounded_to_bfloat16(tmp_path: Path) -> None:
    for stored in ("bfloat16", "float32"):
        save_rounded_model(MODELS["attention bias"], tmp_path / stored, stored)
    token_ids = random_tokens(40)
    rounded, same = (
        run_whole(native_runner(tmp_path / stored), token_ids) for stored in ("bfloat16", "float32")
    )
    assert same.tobytes() == rounded.tobytes()


def test_weights_stored_in_float16_are_rounded_to_bfloat16(tmp_path: Path) -> None:
    save_rounded_model(MODELS["attention bias"], tmp_path, "float16")
    token_ids = random_tokens(40)
    expected = reference_logits(load_reference(tmp_path), token_ids)
    logits = run_whole(native_runner(tmp_path), token_ids)
    assert relative_error(logits, expected) < TOLERANCES["none"]


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_the_embedded_model_agrees_with_transformers(quantization: str) -> None:
    path = embedded_model()
    reference = load_reference(path)
    token_ids = random_tokens(300, vocab_size=reference.config.vocab_size)
    expected = reference_logits(reference, token_ids)
    logits = run_whole(native_runner(path, quantization=quantization), token_ids)
    assert relative_error(logits, expected) < EMBEDDED_TOLERANCES[quantization]
    if quantization == "none":
        assert np.abs(logits - expected).max() <= 1e-2 * np.abs(expected).max()


def test_the_embedded_model_mostly_chooses_the_reference_s_tokens() -> None:
    path = embedded_model()
    sequences = Sequences(block_size=16)
    prompt = random_tokens(20, vocab_size=4096)
    answers = []
    for runner in (torch_runner(path, block_size=16), native_runner(path)):
        sequence = sequences.make(prompt)
        sequence.block_table += sequences.make(random_tokens(64)).block_table
        answers.append(generate_greedily(runner, sequence, 32))
    agreement = np.mean(np.array(answers[0]) == np.array(answers[1]))
    assert agreement > 0.5  # after a near-tie the two texts part
