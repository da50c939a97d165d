"""Defines the decoder that all native families share: embedding, layers, norm, logits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from appliance.engine.torch.layers import (
    MLP,
    HeadNorm,
    RMSNorm,
    Rotation,
    rotary_frequencies,
)
from appliance.engine.torch.linear import Linear, load_joined_linear, load_linear

if TYPE_CHECKING:
    from collections.abc import Mapping

    from appliance.engine.model.config import ModelConfig
    from appliance.engine.torch.attention import Attends, KVCache
    from appliance.engine.torch.weights import Weights


class Attention:
    """Self-attention of one layer: writes keys and values to the cache, then attends over it."""

    def __init__(self, config: ModelConfig, layer: int, weights: Weights, prefix: str) -> None:
        self.layer = layer
        self.num_heads, self.num_kv_heads = config.num_heads, config.num_kv_heads
        self.head_dim = config.head_dim
        names = [f"{prefix}.{name}_proj" for name in "qkv"]
        self.qkv = load_joined_linear(weights, names)
        self.out = load_linear(weights, f"{prefix}.o_proj")
        self.qk_norm = _load_qk_norm(config, weights, prefix) if config.has_qk_norm else None

    def __call__(
        self,
        x: torch.Tensor,
        rotate: Rotation,
        plan: Attends,
        cache: KVCache,
        slots: torch.Tensor,
    ) -> torch.Tensor:
        qkv = self.qkv(x).view(x.shape[0], -1, self.head_dim)  # [T, H + 2 H_kv, D]
        qk, v = qkv.split((self.num_heads + self.num_kv_heads, self.num_kv_heads), dim=1)
        if self.qk_norm is not None:
            qk = self.qk_norm(qk)
        q, k = rotate(qk).split((self.num_heads, self.num_kv_heads), dim=1)
        cache.write(self.layer, slots, k, v)
        return self.out(plan.attend(q, cache, self.layer))


class DecoderLayer:
    """Attention and MLP, each behind a norm and added to the residual stream."""

    def __init__(self, config: ModelConfig, layer: int, weights: Weights) -> None:
        prefix = f"model.layers.{layer}"
        self.window = config.windows[layer]
        self.attention_norm = _load_norm(config, weights, f"{prefix}.input_layernorm")
        self.attention = Attention(config, layer, weights, f"{prefix}.self_attn")
        self.mlp_norm = _load_norm(config, weights, f"{prefix}.post_attention_layernorm")
        gate_up = [f"{prefix}.mlp.gate_proj", f"{prefix}.mlp.up_proj"]
        self.mlp = MLP(
            load_joined_linear(weights, gate_up), load_linear(weights, f"{prefix}.mlp.down_proj")
        )

    def __call__(
        self,
        x: torch.Tensor,
        rotate: Rotation,
        plan: Attends,
        cache: KVCache,
        slots: torch.Tensor,
    ) -> torch.Tensor:
        x = x.add_(self.attention(self.attention_norm(x), rotate, plan, cache, slots))
        return x.add_(self.mlp(self.mlp_norm(x)))


class LlamaModel:
    """Token ids to hidden states to logits; the keys and values of past tokens are in the cache."""

    def __init__(self, config: ModelConfig, weights: Weights) -> None:
        self.embedding = weights.load("model.embed_tokens.weight")
        self.layers = [DecoderLayer(config, i, weights) for i in range(config.num_layers)]
        self.norm = _load_norm(config, weights, "model.norm")
        self.head = Linear(self.embedding if config.is_tied else weights.load("lm_head.weight"))
        frequencies = rotary_frequencies(config.rope, config.head_dim)
        self.frequencies = frequencies.to(self.embedding.device)

    def compute_hidden(
        self,
        token_ids: torch.Tensor,
        positions: torch.Tensor,
        slots: torch.Tensor,
        plans: Mapping[int | None, Attends],
        cache: KVCache,
    ) -> torch.Tensor:
        """Compute final hidden states [T, hidden] of a batch; `plans` has one a window."""
        x = functional.embedding(token_ids, self.embedding)
        rotate = Rotation(self.frequencies, positions, x.dtype)
        for layer in self.layers:
            x = layer(x, rotate, plans[layer.window], cache, slots)
        return self.norm(x)

    def compute_logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.head(hidden)


def _load_norm(config: ModelConfig, weights: Weights, name: str) -> RMSNorm:
    return RMSNorm(weights.load(f"{name}.weight"), config.rms_norm_eps)


def _load_qk_norm(config: ModelConfig, weights: Weights, prefix: str) -> HeadNorm:
    q, k = (weights.load(f"{prefix}.{name}_norm.weight") for name in "qk")
    rows = [q.expand(config.num_heads, -1), k.expand(config.num_kv_heads, -1)]
    return HeadNorm(torch.cat(rows), config.rms_norm_eps)
