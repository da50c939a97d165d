"""What quantizing costs is measured on every token, and is nothing where nothing moved."""

from __future__ import annotations

import math

import numpy as np
import pytest

from appliance.engine.runners.quality import WINDOW_TOKENS, compare
from appliance.engine.sequence import Batch, ChunkOutput
from tests.fakes import FakeRunner

TEXT = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9]


class FixedRunner(FakeRunner):
    """Predicts the same whatever it reads."""

    def __init__(self, logits: list[float], max_context_tokens: int = 128) -> None:
        super().__init__(vocab_size=len(logits), max_context_tokens=max_context_tokens)
        self._fixed = np.array(logits, np.float32)

    def forward(self, batch: Batch) -> list[ChunkOutput]:
        return [ChunkOutput(np.tile(self._fixed, (chunk.length, 1))) for chunk in batch.chunks]


def test_a_model_beside_itself_differs_in_nothing() -> None:
    runner = FakeRunner()
    quality = compare(runner, FakeRunner(), TEXT)
    assert quality.num_tokens == len(TEXT) - 1
    assert quality.original_perplexity == quality.quantized_perplexity > 1
    assert (quality.mean_kl, quality.max_kl, quality.same_choice_share) == (0, 0, 1)
    assert not runner.faults


def test_equal_chances_have_the_perplexity_of_their_number() -> None:
    fair, sure = FixedRunner([0.0] * 10), FixedRunner([math.log(9)] + [0.0] * 9)
    quality = compare(fair, sure, [0, 0, 0])
    assert quality.original_perplexity == pytest.approx(10)
    assert quality.quantized_perplexity == pytest.approx(2)
    divergence = 0.1 * math.log(0.1 / 0.5) + 0.9 * math.log(0.1 / (0.5 / 9))
    assert quality.mean_kl == pytest.approx(divergence)
    assert quality.p99_kl == quality.max_kl == pytest.approx(divergence)


def test_after_a_first_token_of_the_model_every_token_of_the_text_is_predicted() -> None:
    quality = compare(FakeRunner(), FakeRunner(), TEXT, bos_token_id=0)
    assert quality.num_tokens == len(TEXT)


@pytest.mark.parametrize("bos", [None, 0])
@pytest.mark.parametrize("length", [2, 31, 32, 33, 62, 63, 64, 65, 200])
def test_a_text_longer_than_the_context_is_predicted_once_in_windows(
    length: int, bos: int | None
) -> None:
    first, second = (FixedRunner([0.0] * 10, max_context_tokens=32) for _ in range(2))
    told: list[int] = []
    quality = compare(
        first, second, [1] * length, bos_token_id=bos, progress=lambda done, _: told.append(done)
    )
    assert quality.num_tokens == length - (bos is None)
    assert told[-1] == length < WINDOW_TOKENS


def test_a_text_without_a_token_to_predict_is_refused() -> None:
    with pytest.raises(ValueError, match="too few tokens to predict"):
        compare(FakeRunner(), FakeRunner(), [1])
