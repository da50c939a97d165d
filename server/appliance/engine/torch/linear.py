"""Computes linear layers, those of the same input joined into one product."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Sequence

    from appliance.engine.torch.weights import Weights


class Linear:
    """x [T, in] -> [T, out]."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None = None) -> None:
        self.weight = weight
        self.bias = bias

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return functional.linear(x, self.weight, self.bias)


def load_linear(weights: Weights, name: str) -> Linear:
    return Linear(weights.load(f"{name}.weight"), weights.load_optional(f"{name}.bias"))


def load_joined_linear(weights: Weights, names: Sequence[str]) -> Linear:
    """Load one layer whose outputs are those of `names` side by side.

    Joining copies: these weights take anonymous memory even where the stored ones could stay
    mapped; the mapped pages are released. One product instead of three pays from the first token.
    """
    parts = [load_linear(weights, name) for name in names]
    biases = [part.bias for part in parts if part.bias is not None]
    weight = torch.cat([part.weight for part in parts])
    return Linear(weight, torch.cat(biases) if biases else None)
