"""Which models config.json describes, and which values no model can have."""

from __future__ import annotations

import subprocess
import sys

import pytest

from appliance.engine.model.config import (
    ModelConfig,
    RopeConfig,
    RopeKind,
    expected_tensors,
    parse_model_config,
)
from appliance.errors import ModelRefused

LLAMA: dict[str, object] = {
    "model_type": "llama",
    "vocab_size": 100,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "hidden_act": "silu",
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500_000.0,
}
QWEN3: dict[str, object] = {**LLAMA, "model_type": "qwen3", "head_dim": 16}
LLAMA3_VALUES: dict[str, object] = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 128,
}
LLAMA3_ROPE: dict[str, object] = {"rope_type": "llama3", **LLAMA3_VALUES}


def parse(config: dict[str, object]) -> ModelConfig:
    parsed = parse_model_config(config)
    assert parsed is not None
    return parsed


def test_sizes_are_read() -> None:
    config = parse(LLAMA)
    assert (config.num_layers, config.num_heads, config.num_kv_heads) == (4, 8, 2)
    assert (config.hidden_size, config.intermediate_size, config.head_dim) == (64, 96, 8)
    assert (config.vocab_size, config.max_context_tokens) == (100, 512)
    assert config.rms_norm_eps == 1e-5
    assert config.rope == RopeConfig(theta=500_000.0)
    assert config.windows == (None,) * 4
    assert config.num_cache_values_per_token == 2 * 4 * 2 * 8


def test_absent_key_heads_mean_one_for_each_query_head() -> None:
    config = {**LLAMA}
    del config["num_key_value_heads"]
    assert parse(config).num_kv_heads == 8
    assert parse({**LLAMA, "num_key_value_heads": None}).num_kv_heads == 8


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_scaling": LLAMA3_ROPE},
        {"rope_scaling": {"type": "llama3", **LLAMA3_VALUES}},
        {"rope_parameters": {"rope_theta": 500_000.0, **LLAMA3_ROPE}, "rope_theta": 1.0},
        {"rope_parameters": LLAMA3_ROPE},
    ],
)
def test_llama3_rope_is_read_in_every_spelling(rope: dict[str, object]) -> None:
    assert parse({**LLAMA, **rope}).rope == RopeConfig(
        theta=500_000.0,
        kind=RopeKind.LLAMA3,
        factor=8.0,
        low_freq_factor=1.0,
        high_freq_factor=4.0,
        original_context_tokens=128,
    )


def test_linear_rope_is_read_in_the_oldest_spelling() -> None:
    rope = parse({**LLAMA, "rope_scaling": {"type": "linear", "factor": 2}}).rope
    assert rope == RopeConfig(theta=500_000.0, kind=RopeKind.LINEAR, factor=2.0)


def test_the_trained_context_falls_back_to_the_whole_context() -> None:
    rope = {key: value for key, value in LLAMA3_ROPE.items() if not key.startswith("original")}
    assert parse({**LLAMA, "rope_scaling": rope}).rope.original_context_tokens == 512
    outer = {"original_max_position_embeddings": 64, "rope_scaling": LLAMA3_ROPE}
    assert parse({**LLAMA, **outer}).rope.original_context_tokens == 64


@pytest.mark.parametrize(
    ("changes", "biases"),
    [
        ({}, (False, False, False, False)),
        ({"attention_bias": True}, (True, True, False, False)),
        ({"mlp_bias": True}, (False, False, True, False)),
        ({"model_type": "qwen2"}, (True, False, False, False)),
        ({"model_type": "qwen2", "mlp_bias": True}, (True, False, False, False)),
        ({"model_type": "qwen3", "attention_bias": True}, (True, True, False, True)),
        ({"model_type": "mistral", "attention_bias": True}, (False, False, False, False)),
    ],
)
def test_each_family_has_its_own_biases_and_norms(
    changes: dict[str, object], biases: tuple[bool, ...]
) -> None:
    config = parse({**LLAMA, **changes})
    found = (config.has_qkv_bias, config.has_output_bias, config.has_mlp_bias, config.has_qk_norm)
    assert found == biases


@pytest.mark.parametrize(
    ("changes", "windows"),
    [
        ({"model_type": "llama", "sliding_window": 9}, (None,) * 4),
        ({"model_type": "mistral", "sliding_window": 9}, (9,) * 4),
        ({"model_type": "mistral", "sliding_window": None}, (None,) * 4),
        ({"model_type": "mistral"}, (4096,) * 4),
        ({"model_type": "qwen2", "sliding_window": 9}, (None,) * 4),
        (
            {"sliding_window": 9, "use_sliding_window": True, "max_window_layers": 3},
            (None, None, None, 9),
        ),
        (
            {
                "sliding_window": 9,
                "use_sliding_window": True,
                "layer_types": ["sliding_attention", "full_attention"] * 2,
            },
            (9, None, 9, None),
        ),
    ],
)
def test_windows_are_given_for_each_layer(
    changes: dict[str, object], windows: tuple[int | None, ...]
) -> None:
    assert parse({**QWEN3, **changes}).windows == windows


@pytest.mark.parametrize(
    "changes",
    [
        {"model_type": "gpt2"},
        {"model_type": None},
        {"hidden_act": "gelu"},
        {"quantization_config": {"quant_method": "gptq"}},
        {"rope_scaling": {"type": "dynamic", "factor": 2.0}},
        {"rope_scaling": {"rope_type": "yarn", "factor": 2.0}},
        {"rope_parameters": {"rope_type": ["llama3"]}},
        {"rope_parameters": {"full_attention": {"rope_type": "default"}}},
        {"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}},
        {"partial_rotary_factor": [0.5]},
        {"model_type": "qwen3", "layer_types": ["chunked_attention"] * 4},
    ],
)
def test_what_we_cannot_compute_is_left_to_the_plain_runner(changes: dict[str, object]) -> None:
    assert parse_model_config({**LLAMA, **changes}) is None


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"hidden_size": None}, "hidden_size"),
        ({"hidden_size": "64"}, "hidden_size"),
        ({"hidden_size": 64.0}, "hidden_size"),
        ({"hidden_size": True}, "hidden_size"),
        ({"hidden_size": 63}, "hidden_size"),
        ({"vocab_size": -1}, "vocab_size"),
        ({"vocab_size": 10**12}, "vocab_size"),
        ({"num_hidden_layers": 0}, "num_hidden_layers"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers"),
        ({"num_key_value_heads": 3}, "num_key_value_heads"),
        ({"head_dim": 7}, "head_dim"),
        ({"rms_norm_eps": 0}, "rms_norm_eps"),
        ({"rms_norm_eps": "tiny"}, "rms_norm_eps"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps"),
        ({"rope_theta": float("inf")}, "rope_theta"),
        ({"rope_theta": 1e-308}, "rope_theta"),
        ({"rope_scaling": "linear"}, "rope_scaling"),
        ({"rope_scaling": {"type": "linear"}}, "factor"),
        ({"rope_scaling": {**LLAMA3_ROPE, "high_freq_factor": 1.0}}, "high_freq_factor"),
        ({"attention_bias": "yes"}, "attention_bias"),
        ({"tie_word_embeddings": 1}, "tie_word_embeddings"),
        ({"hidden_act": None}, "hidden_act"),
        ({"model_type": "mistral", "sliding_window": 0}, "sliding_window"),
        ({"model_type": "qwen3", "layer_types": ["full_attention"]}, "layer_types"),
        ({"model_type": "qwen3", "layer_types": ["sliding_attention"] * 4}, "layer_types"),
        ({"model_type": "qwen3", "layer_types": "full"}, "layer_types"),
    ],
)
def test_nonsense_is_refused_by_name_and_value(changes: dict[str, object], field: str) -> None:
    with pytest.raises(ModelRefused) as refused:
        parse_model_config({**LLAMA, **changes})
    assert refused.value.message.startswith(f"config.json: {field} is ")
    assert len(refused.value.message) < 300


def test_tensors_are_named_and_shaped_as_in_hugging_face_files() -> None:
    tensors = expected_tensors(parse({**LLAMA, "attention_bias": True, "mlp_bias": True}))
    assert len(tensors) == 3 + 4 * (2 + 7 * 2)
    assert tensors["model.embed_tokens.weight"] == (100, 64)
    assert tensors["lm_head.weight"] == (100, 64)
    assert tensors["model.layers.3.self_attn.k_proj.weight"] == (16, 64)
    assert tensors["model.layers.3.self_attn.k_proj.bias"] == (16,)
    assert tensors["model.layers.0.self_attn.o_proj.bias"] == (64,)
    assert tensors["model.layers.0.mlp.down_proj.weight"] == (64, 96)
    assert tensors["model.layers.0.mlp.gate_proj.bias"] == (96,)


def test_tied_models_have_no_output_matrix_and_qwen3_has_head_norms() -> None:
    tensors = expected_tensors(parse({**QWEN3, "tie_word_embeddings": True}))
    assert "lm_head.weight" not in tensors
    assert tensors["model.layers.1.self_attn.q_norm.weight"] == (16,)
    assert tensors["model.layers.1.self_attn.q_proj.weight"] == (128, 64)


def test_reading_a_config_does_not_import_torch() -> None:
    code = (
        "import sys, appliance.engine.model.config, appliance.engine.model.dtype;"
        "import appliance.engine.model.tensor_file; print('torch' in sys.modules)"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert printed.stdout.strip() == b"False"
