"""Defines the parts of a decoder layer that work token by token: norm, rotary encoding, MLP."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from appliance.engine.model.config import RopeConfig, RopeKind

if TYPE_CHECKING:
    from appliance.engine.torch.linear import Linear


class RMSNorm:
    """Scales rows to unit mean square, summed in float32 for any type of x."""

    def __init__(self, weight: torch.Tensor, eps: float) -> None:
        self.weight = weight
        self.eps = eps

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return functional.rms_norm(x, self.weight.shape, self.weight, self.eps)


class HeadNorm:
    """RMSNorm over the head dimension; queries and keys have one weight each."""

    def __init__(self, weight: torch.Tensor, eps: float) -> None:
        self.weight = weight  # [H, D], a row a head
        self.eps = eps

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return functional.rms_norm(x, x.shape[-1:], None, self.eps) * self.weight


class MLP:
    """down(silu(gate(x)) * up(x)), gate and up joined."""

    def __init__(self, gate_up: Linear, down: Linear) -> None:
        self.gate_up = gate_up
        self.down = down

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.down(functional.silu(gate).mul_(up))


class Rotation:
    """The rotary encoding of given positions, worked out once for all layers of a forward pass."""

    def __init__(
        self, frequencies: torch.Tensor, positions: torch.Tensor, dtype: torch.dtype
    ) -> None:
        angles = positions[:, None].float() * frequencies  # [T, D / 2], float32 as in transformers
        cos, sin = angles.cos(), angles.sin()
        self.cos = torch.cat((cos, cos), dim=-1)[:, None].to(dtype)  # [T, 1, D]
        self.sin = torch.cat((-sin, sin), dim=-1)[:, None].to(dtype)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Rotate x [T, H, D]; dimension i pairs with i + D / 2."""
        swapped = x.roll(x.shape[-1] // 2, dims=-1)
        return (x * self.cos).add_(swapped.mul_(self.sin))


def rotary_frequencies(rope: RopeConfig, head_dim: int) -> torch.Tensor:
    """Compute radians a position for each pair of dimensions, [D / 2]."""
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim
    frequencies = 1.0 / (rope.theta**exponents)
    if rope.kind is RopeKind.LINEAR:
        return frequencies / rope.factor
    if rope.kind is RopeKind.LLAMA3:
        return _stretch_llama3(frequencies, rope)
    return frequencies


def _stretch_llama3(frequencies: torch.Tensor, rope: RopeConfig) -> torch.Tensor:
    """Divide slow frequencies by the factor, keep fast ones, blend those between."""
    wavelengths = 2 * math.pi / frequencies
    turns = rope.original_context_tokens / wavelengths  # over the context trained on
    kept_share = (turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor)
    kept_share = kept_share.clamp(0.0, 1.0)
    return (1 - kept_share) * frequencies / rope.factor + kept_share * frequencies
