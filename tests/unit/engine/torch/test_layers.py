"""Rotary frequencies and rotation, norms and joined layers, against their definitions."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import torch

from appliance.engine.model.config import RopeConfig, RopeKind
from appliance.engine.model.tensor_file import TensorLocation
from appliance.engine.torch.layers import HeadNorm, RMSNorm, Rotation, rotary_frequencies
from appliance.engine.torch.linear import load_joined_linear
from appliance.engine.torch.weights import Weights

if TYPE_CHECKING:
    from pathlib import Path

D = 8


def test_plain_frequencies_fall_from_one_by_powers_of_theta() -> None:
    frequencies = rotary_frequencies(RopeConfig(theta=10_000.0), D)
    expected = torch.tensor([1.0, 0.1, 0.01, 0.001])
    torch.testing.assert_close(frequencies, expected)


def test_linear_scaling_divides_every_frequency() -> None:
    rope = RopeConfig(theta=10_000.0, kind=RopeKind.LINEAR, factor=4.0)
    plain = rotary_frequencies(RopeConfig(theta=10_000.0), D)
    torch.testing.assert_close(rotary_frequencies(rope, D), plain / 4)


def test_llama3_scaling_keeps_fast_and_divides_slow_frequencies() -> None:
    rope = RopeConfig(theta=10_000.0, kind=RopeKind.LLAMA3, factor=8.0, original_context_tokens=128)
    plain = rotary_frequencies(RopeConfig(theta=10_000.0), D)
    scaled = rotary_frequencies(rope, D)
    torch.testing.assert_close(scaled[0], plain[0])  # 20 turns over the context: kept
    torch.testing.assert_close(scaled[2:], plain[2:] / 8)  # less than a turn: divided
    assert plain[1] / 8 < scaled[1] < plain[1]  # 2 turns: between


def test_rotation_turns_pairs_half_the_head_apart() -> None:
    x = torch.randn(3, 2, D)
    frequencies = rotary_frequencies(RopeConfig(theta=100.0), D)
    rotated = Rotation(frequencies, torch.tensor([0, 1, 7]), torch.float32)(x)
    torch.testing.assert_close(rotated[0], x[0])
    angle = 7 * float(frequencies[1])
    first, second = x[2, 1, 1], x[2, 1, 1 + D // 2]
    torch.testing.assert_close(rotated[2, 1, 1], first * math.cos(angle) - second * math.sin(angle))
    torch.testing.assert_close(
        rotated[2, 1, 1 + D // 2], second * math.cos(angle) + first * math.sin(angle)
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_norm_sums_in_float32(dtype: torch.dtype) -> None:
    x = (torch.randn(5, 4096) * 100).to(dtype)
    weight = torch.randn(4096).to(dtype)
    normed = RMSNorm(weight, 1e-5)(x)
    exact = x.double() * torch.rsqrt(x.double().pow(2).mean(-1, keepdim=True) + 1e-5)
    assert normed.dtype == dtype
    torch.testing.assert_close(normed, (exact * weight.double()).to(dtype))


def test_a_head_norm_gives_each_head_its_own_weight() -> None:
    x, weight = torch.randn(3, 2, D), torch.randn(2, D)
    normed = HeadNorm(weight, 1e-5)(x)
    torch.testing.assert_close(normed[:, 1], RMSNorm(weight[1], 1e-5)(x[:, 1]))


def test_joined_layers_give_their_outputs_side_by_side(tmp_path: Path) -> None:
    tensors = {
        "a.weight": torch.randn(3, D),
        "a.bias": torch.randn(3),
        "b.weight": torch.randn(2, D),
        "b.bias": torch.randn(2),
    }
    locations = {}
    for name, tensor in tensors.items():
        path = tmp_path / name
        path.write_bytes(tensor.numpy().tobytes())
        shape = tuple(tensor.shape)
        locations[name] = TensorLocation(
            path=path, dtype="F32", shape=shape, start=0, end=tensor.nbytes
        )
    weights = Weights(locations, torch.device("cpu"), torch.float32)
    x = torch.randn(4, D)
    parts = [x @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"] for name in "ab"]
    joined = load_joined_linear(weights, ["a", "b"])
    torch.testing.assert_close(joined(x), torch.cat(parts, dim=-1))
