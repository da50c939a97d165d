"""Lists the model families that native runners compute, and how their config.json differs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Describes one `model_type`: what is fixed, what config.json may switch, the defaults."""

    has_qkv_bias: bool = False  # always, without a switch
    has_attention_bias_setting: bool = False  # `attention_bias`: on q, k, v and the output
    has_mlp_bias_setting: bool = False  # `mlp_bias`
    has_qk_norm: bool = False
    has_window: bool = False  # `sliding_window` counts
    has_window_switch: bool = False  # in some layers, if `use_sliding_window`
    defaults: Mapping[str, object] = field(default_factory=dict)


_SHARED_DEFAULTS: Mapping[str, object] = {
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "rope_theta": 10_000.0,
}
_QWEN_DEFAULTS: Mapping[str, object] = {
    **_SHARED_DEFAULTS,
    "max_position_embeddings": 32_768,
    "sliding_window": 4096,
    "max_window_layers": 28,
}

# The defaults are those of transformers' configuration classes: a file that leaves a field out
# means the same model to both.
FAMILIES: Mapping[str, Family] = {
    "llama": Family(
        has_attention_bias_setting=True,
        has_mlp_bias_setting=True,
        defaults={**_SHARED_DEFAULTS, "max_position_embeddings": 2048},
    ),
    "mistral": Family(
        has_window=True,
        defaults={
            **_SHARED_DEFAULTS,
            "max_position_embeddings": 131_072,
            "num_key_value_heads": 8,
            "sliding_window": 4096,
        },
    ),
    "qwen2": Family(
        has_qkv_bias=True,
        has_window=True,
        has_window_switch=True,
        defaults={**_QWEN_DEFAULTS, "num_key_value_heads": 32},
    ),
    "qwen3": Family(
        has_attention_bias_setting=True,
        has_qk_norm=True,
        has_window=True,
        has_window_switch=True,
        defaults={**_QWEN_DEFAULTS, "num_key_value_heads": 32, "head_dim": 128},
    ),
}
