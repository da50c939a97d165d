"""Parses a config.json of the Llama family and lists the tensors that must come with it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from appliance.engine.model.registry import FAMILIES, Family
from appliance.errors import ModelRefused

# Ten times the deepest model there is: a guard against a file that would have us list billions.
MAX_LAYERS = 2000
# Below it the powers that positions are multiplied by leave what a float32 holds.
MIN_ROPE_THETA = 1e-20


class RopeKind(StrEnum):
    """How rotary frequencies are stretched beyond the context a model was trained on."""

    DEFAULT = "default"
    LINEAR = "linear"
    LLAMA3 = "llama3"


@dataclass(frozen=True, slots=True, kw_only=True)
class RopeConfig:
    """The rotary position encoding; the last three fields count for `llama3` alone."""

    theta: float
    kind: RopeKind = RopeKind.DEFAULT
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_context_tokens: int = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """Describes a decoder of the Llama family: all that a native runner needs besides weights."""

    model_type: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    rms_norm_eps: float
    rope: RopeConfig
    max_context_tokens: int
    has_qkv_bias: bool
    has_output_bias: bool
    has_mlp_bias: bool
    has_qk_norm: bool
    is_tied: bool  # the output matrix is the embedding
    windows: tuple[int | None, ...]  # one a layer: the last tokens it sees; None is all

    @property
    def num_cache_values_per_token(self) -> int:
        """Count keys and values of one token over all layers."""
        return 2 * self.num_layers * self.num_kv_heads * self.head_dim


def parse_model_config(config: Mapping[str, object]) -> ModelConfig | None:
    """Parse config.json; return None when a native runner cannot compute such a model."""
    family = FAMILIES.get(str(config.get("model_type")))
    if family is None or config.get("quantization_config") is not None:
        return None
    fields = _Fields({**family.defaults, **config})
    if fields.text("hidden_act") not in {"silu", "swish"}:
        return None
    rope = _parse_rope(fields)
    windows = _parse_windows(fields, family)
    if rope is None or windows is None:
        return None
    num_heads = fields.count("num_attention_heads")
    num_kv_heads = fields.optional_count("num_key_value_heads") or num_heads
    if num_heads % num_kv_heads:
        rule = f"it must divide num_attention_heads, {num_heads}"
        raise _refusal("num_key_value_heads", num_kv_heads, rule)
    has_attention_bias = family.has_attention_bias_setting and fields.flag("attention_bias")
    return ModelConfig(
        model_type=fields.text("model_type"),
        vocab_size=fields.count("vocab_size"),
        hidden_size=fields.count("hidden_size"),
        intermediate_size=fields.count("intermediate_size"),
        num_layers=fields.count("num_hidden_layers", high=MAX_LAYERS),
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=_parse_head_dim(fields, num_heads),
        rms_norm_eps=fields.positive("rms_norm_eps"),
        rope=rope,
        max_context_tokens=fields.count("max_position_embeddings"),
        has_qkv_bias=family.has_qkv_bias or has_attention_bias,
        has_output_bias=has_attention_bias,
        has_mlp_bias=family.has_mlp_bias_setting and fields.flag("mlp_bias"),
        has_qk_norm=family.has_qk_norm,
        is_tied=fields.flag("tie_word_embeddings"),
        windows=windows,
    )


def expected_tensors(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """List name and shape of exactly the tensors that the model has, as HF names them."""
    tensors: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (config.vocab_size, config.hidden_size),
        "model.norm.weight": (config.hidden_size,),
    }
    if not config.is_tied:
        tensors["lm_head.weight"] = (config.vocab_size, config.hidden_size)
    layer = _layer_tensors(config)
    for index in range(config.num_layers):
        tensors.update({f"model.layers.{index}.{name}": shape for name, shape in layer.items()})
    return tensors


def _layer_tensors(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    hidden, inner = config.hidden_size, config.intermediate_size
    q_size, kv_size = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    tensors: dict[str, tuple[int, ...]] = {
        "input_layernorm.weight": (hidden,),
        "post_attention_layernorm.weight": (hidden,),
    }
    linears = [
        ("self_attn.q_proj", q_size, hidden, config.has_qkv_bias),
        ("self_attn.k_proj", kv_size, hidden, config.has_qkv_bias),
        ("self_attn.v_proj", kv_size, hidden, config.has_qkv_bias),
        ("self_attn.o_proj", hidden, q_size, config.has_output_bias),
        ("mlp.gate_proj", inner, hidden, config.has_mlp_bias),
        ("mlp.up_proj", inner, hidden, config.has_mlp_bias),
        ("mlp.down_proj", hidden, inner, config.has_mlp_bias),
    ]
    for name, num_rows, num_columns, has_bias in linears:
        tensors[f"{name}.weight"] = (num_rows, num_columns)
        if has_bias:
            tensors[f"{name}.bias"] = (num_rows,)
    if config.has_qk_norm:
        tensors["self_attn.q_norm.weight"] = (config.head_dim,)
        tensors["self_attn.k_norm.weight"] = (config.head_dim,)
    return tensors


def _parse_head_dim(fields: _Fields, num_heads: int) -> int:
    head_dim = fields.optional_count("head_dim")
    hidden_size = fields.count("hidden_size")
    if head_dim is None:
        if hidden_size % num_heads:
            rule = f"it must be a multiple of num_attention_heads, {num_heads}"
            raise _refusal("hidden_size", hidden_size, rule)
        head_dim = hidden_size // num_heads
    if head_dim % 2:
        raise _refusal("head_dim", head_dim, "it must be even for rotary position encoding")
    return head_dim


def _parse_rope(fields: _Fields) -> RopeConfig | None:
    """Parse the position encoding: `rope_scaling` or, since transformers 5, `rope_parameters`."""
    section = fields.section("rope_scaling") or fields.section("rope_parameters")
    kind = section.values.get("rope_type", section.values.get("type", "default"))
    shares = (part.values.get("partial_rotary_factor") for part in (section, fields))
    if kind not in list(RopeKind) or any(share not in (None, 1) for share in shares):
        return None
    if section.holds_sections:  # one encoding for each kind of layer: not this family
        return None
    theta = (section if "rope_theta" in section.values else fields).positive("rope_theta")
    if theta < MIN_ROPE_THETA:
        raise _refusal("rope_theta", theta, f"it must be at least {MIN_ROPE_THETA:g}")
    if kind == RopeKind.DEFAULT:
        return RopeConfig(theta=theta)
    factor = section.positive("factor")
    if kind == RopeKind.LINEAR:
        return RopeConfig(theta=theta, kind=RopeKind.LINEAR, factor=factor)
    low, high = section.positive("low_freq_factor"), section.positive("high_freq_factor")
    if high <= low:
        raise _refusal("high_freq_factor", high, f"it must be greater than low_freq_factor, {low}")
    return RopeConfig(
        theta=theta,
        kind=RopeKind.LLAMA3,
        factor=factor,
        low_freq_factor=low,
        high_freq_factor=high,
        original_context_tokens=_original_context_tokens(fields, section),
    )


def _original_context_tokens(fields: _Fields, section: _Fields) -> int:
    """Find the value where transformers does: the outer field, the section's, the context."""
    name = "original_max_position_embeddings"
    found = fields.optional_count(name) or section.optional_count(name)
    return found or fields.count("max_position_embeddings")


def _parse_windows(fields: _Fields, family: Family) -> tuple[int | None, ...] | None:
    num_layers = fields.count("num_hidden_layers", high=MAX_LAYERS)
    if not family.has_window:
        return (None,) * num_layers
    if not family.has_window_switch:
        return (fields.optional_count("sliding_window"),) * num_layers
    is_on = fields.flag("use_sliding_window")
    window = fields.optional_count("sliding_window") if is_on else None
    kinds = fields.values.get("layer_types")
    if kinds is None:
        first = fields.optional_count("max_window_layers", low=0) or 0
        return tuple(window if index >= first else None for index in range(num_layers))
    if not isinstance(kinds, list) or len(kinds) != num_layers:
        raise _refusal("layer_types", kinds, f"it must list a kind for each of {num_layers} layers")
    if any(kind not in ("full_attention", "sliding_attention") for kind in kinds):
        return None
    if window is None and "sliding_attention" in kinds:
        raise _refusal("layer_types", kinds, "without a sliding window all layers must be full")
    return tuple(window if kind == "sliding_attention" else None for kind in kinds)


@dataclass(frozen=True, slots=True)
class _Fields:
    """Reads typed values of a JSON object and refuses those of the wrong type or sign by name."""

    values: Mapping[str, object]

    def __bool__(self) -> bool:
        return bool(self.values)

    @property
    def holds_sections(self) -> bool:
        return any(isinstance(value, Mapping) for value in self.values.values())

    def section(self, name: str) -> _Fields:
        value = self.values.get(name)
        if value is None:
            return _Fields({})
        if not isinstance(value, Mapping):
            raise _refusal(name, value, "it must be an object")
        return _Fields(value)

    def text(self, name: str) -> str:
        value = self.values.get(name)
        if not isinstance(value, str):
            raise _refusal(name, value, "it must be a string")
        return value

    def flag(self, name: str) -> bool:
        value = self.values.get(name, False)
        if not isinstance(value, bool):
            raise _refusal(name, value, "it must be true or false")
        return value

    def count(self, name: str, *, low: int = 1, high: int = 2**31 - 1) -> int:
        value = self.values.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise _refusal(name, value, f"it must be a whole number from {low} to {high}")
        return value

    def optional_count(self, name: str, *, low: int = 1) -> int | None:
        return None if self.values.get(name) is None else self.count(name, low=low)

    def positive(self, name: str) -> float:
        value = self.values.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _refusal(name, value, "it must be a number")
        if not 0 < value < math.inf:
            raise _refusal(name, value, "it must be above 0 and finite")
        return float(value)


def _refusal(name: str, value: object, rule: str) -> ModelRefused:
    shown = "missing" if value is None else repr(value)[:80]
    return ModelRefused(f"config.json: {name} is {shown}; {rule}.")
