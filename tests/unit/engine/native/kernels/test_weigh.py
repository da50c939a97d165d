"""A vocabulary's weights: exact to a few bits, and the same bits with vectors of any width."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest

from appliance.engine.sampler import relative_probabilities
from tests.engine.native_harness import native_library, supported_variants

if TYPE_CHECKING:
    from appliance.engine.sequence import DoubleArray, FloatArray


def weigh(logits: FloatArray, peak: float, temperature: float) -> DoubleArray:
    weights = np.full(len(logits) + 1, 7.0)
    address = weights.ctypes.data
    native_library().weigh(logits.ctypes.data, len(logits), peak, temperature, address)
    assert weights[-1] == 7.0
    return weights[:-1]


@pytest.mark.parametrize("size", [1, 7, 8, 4096, 5001])
@pytest.mark.parametrize("temperature", [0.01, 0.7, 1.0, 2.0])
def test_weights_are_exponentials_in_every_variant(size: int, temperature: float) -> None:
    logits = np.random.default_rng(size).normal(0, 6, size).astype(np.float32)
    peak = float(logits.max())
    expected = relative_probabilities(logits, peak, temperature)
    found = []
    try:
        for variant in supported_variants():
            native_library().choose_variant(variant)
            found.append(weigh(logits, peak, temperature))
    finally:
        native_library().choose_variant(supported_variants()[0])
    assert len({weights.tobytes() for weights in found}) == 1
    assert found[0].max() == 1.0
    normal = expected > 1e-300  # what is below becomes zero
    np.testing.assert_allclose(found[0][normal], expected[normal], rtol=1e-15)
    assert found[0][~normal].max(initial=0.0) < 1e-300


def test_impossible_tokens_weigh_nothing_whatever_the_temperature() -> None:
    logits = np.array([2.0, -math.inf, -1e30, 2.0, 1.0], np.float32)
    assert weigh(logits, 2.0, 1.0)[:4].tolist() == [1.0, 0.0, 0.0, 1.0]
    assert weigh(logits, 2.0, 1e-300).tolist() == [1.0, 0.0, 0.0, 1.0, 0.0]
