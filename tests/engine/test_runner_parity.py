"""The native runner computes what transformers computes."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from transformers import LlamaConfig, MistralConfig, PretrainedConfig, Qwen2Config, Qwen3Config

from appliance.engine.model.config import parse_model_config
from appliance.engine.torch.fixed_attention import FixedShape
from tests.engine.runner_harness import (
    VOCAB_SIZE,
    Sequences,
    largest_difference,
    load_reference,
    random_tokens,
    reference_logits,
    run_chunks,
    run_decode,
    save_model,
    torch_runner,
)

TOLERANCE = 1e-4
NUM_TOKENS = 120  # longer than every window and every trained context below

SIZES: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 64,
    "intermediate_size": 112,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    "initializer_range": 0.15,
}
GROUPED: dict[str, Any] = {**SIZES, "num_key_value_heads": 2}
LLAMA3_ROPE: dict[str, Any] = {
    "rope_type": "llama3",
    "rope_theta": 5000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
LINEAR_ROPE = {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 4.0}
SOME_WINDOWS = ["full_attention", "sliding_attention", "sliding_attention"]

MODELS: dict[str, PretrainedConfig] = {
    "multi-head": LlamaConfig(**SIZES),
    "grouped-query": LlamaConfig(**GROUPED),
    "one key head": LlamaConfig(**SIZES, num_key_value_heads=1),
    "explicit head_dim": LlamaConfig(**GROUPED, head_dim=24),
    "tied embeddings": LlamaConfig(**GROUPED, tie_word_embeddings=True),
    "llama 3 rope": LlamaConfig(**GROUPED, rope_parameters=LLAMA3_ROPE),
    "linear rope": LlamaConfig(**GROUPED, rope_parameters=LINEAR_ROPE),
    "attention bias": LlamaConfig(**GROUPED, attention_bias=True),
    "mlp bias": LlamaConfig(**GROUPED, mlp_bias=True),
    "sliding window": MistralConfig(**GROUPED, sliding_window=21),
    "mistral, no window": MistralConfig(**GROUPED, sliding_window=None),
    "qkv bias": Qwen2Config(**GROUPED, use_sliding_window=False),
    "some layers with a window": Qwen2Config(
        **GROUPED, use_sliding_window=True, sliding_window=13, max_window_layers=1
    ),
    "qk-norm": Qwen3Config(**GROUPED, head_dim=16),
    "qk-norm, bias, windows by name": Qwen3Config(
        **GROUPED,
        head_dim=24,
        attention_bias=True,
        use_sliding_window=True,
        sliding_window=17,
        layer_types=SOME_WINDOWS,
    ),
}


@pytest.mark.parametrize("fixed_shape", [None, FixedShape(16, 4, 32)], ids=["free", "fixed"])
@pytest.mark.parametrize("name", MODELS)
def test_logits_agree_with_transformers(
    name: str, fixed_shape: FixedShape | None, tmp_path: Path
) -> None:
    save_model(MODELS[name], tmp_path)
    token_ids = random_tokens(NUM_TOKENS)
    expected = reference_logits(load_reference(tmp_path), token_ids)
    assert expected.std() > 0.3, "logits too small for the tolerance to mean something"
    runner, sequences = torch_runner(tmp_path, fixed_shape=fixed_shape), Sequences()
    whole = run_chunks(runner, sequences.make(token_ids), [NUM_TOKENS])
    decoded = run_decode(runner, sequences.make(token_ids), 70)
    chunked = run_chunks(runner, sequences.make(token_ids), [5, 1, 26, 40, 1, 47])
    assert largest_difference(whole, expected) < TOLERANCE
    assert largest_difference(decoded, expected) < TOLERANCE
    assert largest_difference(chunked, expected) < TOLERANCE


@pytest.mark.parametrize("kind", [LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config])
def test_absent_fields_mean_what_they_mean_to_transformers(kind: type[PretrainedConfig]) -> None:
    written = kind().to_dict()
    names = ["model_type", "vocab_size", "hidden_size", "intermediate_size"]
    names += ["num_hidden_layers", "num_attention_heads"]
    sparse = {name: written[name] for name in names}
    assert parse_model_config(written) is not None
    assert parse_model_config(sparse) == parse_model_config(written)


def test_a_sharded_model_is_the_same_model(tmp_path: Path) -> None:
    save_model(MODELS["grouped-query"], tmp_path, shard_size="60KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    token_ids = random_tokens(30)
    expected = reference_logits(load_reference(tmp_path), token_ids)
    logits = run_chunks(torch_runner(tmp_path), Sequences().make(token_ids), [30])
    assert largest_difference(logits, expected) < TOLERANCE


def test_the_older_spelling_of_rope_scaling_is_the_same_model(tmp_path: Path) -> None:
    save_model(MODELS["llama 3 rope"], tmp_path)
    token_ids = random_tokens(NUM_TOKENS)
    before = run_chunks(torch_runner(tmp_path), Sequences().make(token_ids), [NUM_TOKENS])
    respell_rope(tmp_path / "config.json")
    after = run_chunks(torch_runner(tmp_path), Sequences().make(token_ids), [NUM_TOKENS])
    expected = reference_logits(load_reference(tmp_path), token_ids)
    assert largest_difference(after, before) == 0.0
    assert largest_difference(after, expected) < TOLERANCE


def respell_rope(config: Path) -> None:
    """As transformers 4 wrote it: the base frequency outside, the rest in `rope_scaling`."""
    values = json.loads(config.read_text())
    rope = values.pop("rope_parameters")
    values["rope_theta"] = rope.pop("rope_theta")
    config.write_text(json.dumps({**values, "rope_scaling": rope}))


def test_the_embedded_model_agrees_with_transformers() -> None:
    path = Path(str(resources.files("appliance") / "embedded"))
    reference = load_reference(path)
    token_ids = random_tokens(300, vocab_size=reference.config.vocab_size)
    expected = reference_logits(reference, token_ids)
    runner, sequences = torch_runner(path), Sequences()
    whole = run_chunks(runner, sequences.make(token_ids), [300])
    decoded = run_decode(runner, sequences.make(token_ids), 250)
    assert largest_difference(whole, expected) < TOLERANCE
    assert largest_difference(decoded, expected) < TOLERANCE
