"""The transformers runner computes what transformers' own generate does, in any schedule."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from transformers import (
    BertConfig,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MambaConfig,
    PretrainedConfig,
)

from appliance.engine.runners.transformers import is_known_to_transformers
from appliance.engine.sequence import Batch, Chunk, LogitRows
from appliance.errors import ModelRefused
from tests.engine.runner_harness import (
    VOCAB_SIZE,
    Sequences,
    generate_greedily,
    largest_difference,
    load_reference,
    random_tokens,
    reference_logits,
    run_chunks,
    run_decode,
    save_model,
    torch_runner,
    transformers_runner,
)

if TYPE_CHECKING:
    from pathlib import Path

TOLERANCE = 1e-4
SIZES: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "initializer_range": 0.15,
    "bos_token_id": 0,
    "eos_token_id": None,
    "pad_token_id": 0,
    "tie_word_embeddings": False,
}
MODELS: dict[str, PretrainedConfig] = {
    "gpt2": GPT2Config(
        vocab_size=VOCAB_SIZE,
        n_embd=48,
        n_layer=2,
        n_head=4,
        n_positions=128,
        initializer_range=0.15,
        bos_token_id=0,
        eos_token_id=None,
        tie_word_embeddings=False,
    ),
    "gpt_neox": GPTNeoXConfig(**SIZES, max_position_embeddings=128),
    "gemma3_text": Gemma3TextConfig(
        **SIZES,
        num_key_value_heads=2,
        head_dim=16,
        sliding_window=9,
        layer_types=["sliding_attention", "full_attention"],
        max_position_embeddings=128,
    ),
    "mamba": MambaConfig(**{**SIZES, "num_attention_heads": None}, state_size=4),
}


@pytest.fixture(scope="module", params=MODELS)
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    save_model(MODELS[request.param], path)
    return path


def test_greedy_tokens_are_those_of_generate(path: Path) -> None:
    prompt = random_tokens(14)
    reference = load_reference(path)
    with torch.inference_mode():
        generate: Any = reference.generate
        expected = generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt)),
            do_sample=False,
            max_new_tokens=24,
            min_new_tokens=24,
        )[0, len(prompt) :].tolist()
    assert len(set(expected)) > 3, "a model that repeats itself proves little"
    sequence = Sequences().make(prompt)
    assert generate_greedily(transformers_runner(path), sequence, 24) == expected


def test_chunked_prefill_and_decode_agree_with_one_pass(path: Path) -> None:
    token_ids = random_tokens(40)
    expected = reference_logits(load_reference(path), token_ids)
    runner, sequences = transformers_runner(path), Sequences()
    chunked = run_chunks(runner, sequences.make(token_ids), [7, 1, 20, 12])
    decoded = run_decode(runner, sequences.make(token_ids), 25)
    assert largest_difference(chunked, expected) < TOLERANCE
    assert largest_difference(decoded, expected) < TOLERANCE


def test_a_sequence_whose_past_is_gone_is_computed_again(path: Path) -> None:
    token_ids = random_tokens(30)
    expected = reference_logits(load_reference(path), token_ids)
    runner, sequence = transformers_runner(path), Sequences().make(token_ids)
    run_chunks(runner, sequence, [20])
    runner.release(sequence.sequence_id)
    after_release = run_chunks(runner, sequence, [5], start=20)
    after_going_back = run_chunks(runner, sequence, [15], start=10)
    after_a_gap = run_chunks(runner, Sequences().make(token_ids), [2], start=28)
    assert largest_difference(after_release, expected[20:25]) < TOLERANCE
    assert largest_difference(after_going_back, expected[10:25]) < TOLERANCE
    assert largest_difference(after_a_gap, expected[28:]) < TOLERANCE


def test_sequences_of_one_batch_keep_apart(path: Path) -> None:
    runner, sequences = transformers_runner(path), Sequences()
    reference = load_reference(path)
    prompts = [random_tokens(length, seed=length) for length in (9, 12)]
    made = [sequences.make(prompt) for prompt in prompts]
    runner.forward(Batch(tuple(Chunk(s, 0, 8, LogitRows.NONE) for s in made)))
    chunks = tuple(Chunk(s, 8, len(s.token_ids) - 8, LogitRows.ALL) for s in made)
    for output, prompt in zip(runner.forward(Batch(chunks)), prompts, strict=True):
        assert output.logits is not None
        assert (
            largest_difference(output.logits, reference_logits(reference, prompt)[8:]) < TOLERANCE
        )


def test_nothing_is_kept_of_a_released_sequence(path: Path) -> None:
    runner, sequence = transformers_runner(path), Sequences().make(random_tokens(6))
    run_chunks(runner, sequence, [6])
    runner.release(sequence.sequence_id)
    runner.release(sequence.sequence_id)
    assert not runner._pasts


def test_rows_and_pooling_are_those_asked_for(path: Path) -> None:
    runner, sequences = transformers_runner(path), Sequences()
    sequence = sequences.make(random_tokens(10), is_pooled=True)
    (output,) = runner.forward(Batch((Chunk(sequence, 0, 10, LogitRows.NONE),)))
    assert output.logits is None
    assert output.hidden_sum is not None
    assert output.hidden_sum.shape == (48,)
    assert output.hidden_sum.dtype == np.float64


def test_both_runners_agree_on_logits_and_pooling(tmp_path: Path) -> None:
    save_model(LlamaConfig(**SIZES, num_key_value_heads=2), tmp_path)
    sequence = Sequences().make(random_tokens(50), is_pooled=True)
    batch = Batch((Chunk(sequence, 0, 50, LogitRows.ALL),))
    (native,) = torch_runner(tmp_path).forward(batch)
    (plain,) = transformers_runner(tmp_path).forward(batch)
    assert native.logits is not None
    assert plain.logits is not None
    assert native.hidden_sum is not None
    assert plain.hidden_sum is not None
    assert largest_difference(native.logits, plain.logits) < TOLERANCE
    np.testing.assert_allclose(native.hidden_sum, plain.hidden_sum, atol=1e-3)


def test_an_encoder_is_refused(tmp_path: Path) -> None:
    sizes = {name: value for name, value in SIZES.items() if name != "eos_token_id"}
    save_model(BertConfig(**sizes, architectures=["BertLMHeadModel"]), tmp_path)
    with pytest.raises(ModelRefused, match="of type 'bert', reads text in both"):
        transformers_runner(tmp_path)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"num_hidden_layers": 3}, "are missing: 12, the first 'gpt_neox.layers.2.att"),
        ({"num_hidden_layers": 1}, "are unexpected: 12, the first 'gpt_neox.layers.1.att"),
        ({"intermediate_size": 97}, "are mismatched: 6, the first 'gpt_neox.layers.0.mlp"),
        ({"num_attention_heads": 5}, "transformers cannot load the model: .*not divisible"),
        ({"model_type": "nonsense"}, "transformers cannot load the model: .*nonsense"),
    ],
)
def test_weights_of_another_model_are_refused(
    changes: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    save_model(MODELS["gpt_neox"], tmp_path)
    config = tmp_path / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **changes}))
    with pytest.raises(ModelRefused, match=reason):
        transformers_runner(tmp_path)


def test_a_sequence_goes_on_from_its_past(tmp_path: Path) -> None:
    save_model(MODELS["gpt2"], tmp_path)
    runner, sequence = transformers_runner(tmp_path), Sequences().make(random_tokens(12))
    lengths: list[int] = []

    def note_length(_: object, __: object, arguments: dict[str, torch.Tensor]) -> None:
        lengths.append(arguments["input_ids"].shape[1])

    runner._model.register_forward_pre_hook(note_length, with_kwargs=True)
    run_chunks(runner, sequence, [7, 3, 1, 1])
    assert lengths == [7, 3, 1, 1]


@pytest.mark.parametrize(
    ("model_type", "is_known"), [("gpt2", True), ("phi3", True), ("t5", False), ("nonsense", False)]
)
def test_causal_models_that_transformers_has_are_known(model_type: str, is_known: bool) -> None:
    assert is_known_to_transformers(model_type) is is_known
