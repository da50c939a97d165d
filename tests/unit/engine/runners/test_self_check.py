"""What a runner claims is tried out: alone, in pieces, among others."""

from __future__ import annotations

import pytest

from appliance.engine.runners.self_check import find_difference
from appliance.engine.sequence import Batch, ChunkOutput
from tests.fakes import FakeRunner


class Unlawful(FakeRunner):
    """Its last bits depend on how many rows or chunks there are."""

    def __init__(self, *, minds_rows: bool = False, minds_others: bool = False) -> None:
        super().__init__()
        self._minds_rows, self._minds_others = minds_rows, minds_others

    def forward(self, batch: Batch) -> list[ChunkOutput]:
        outputs = super().forward(batch)
        factor = 1.0
        if self._minds_rows and batch.num_tokens > 1:
            factor += 1e-6
        if self._minds_others and len(batch.chunks) > 1:
            factor += 1e-6
        for output in outputs:
            if output.logits is not None:
                output.logits[:] *= factor
        return outputs


def test_a_runner_that_keeps_the_law_has_no_difference() -> None:
    assert find_difference(FakeRunner(), 60) is None


def test_every_sequence_reads_only_what_was_written_for_it() -> None:
    runner = FakeRunner()
    find_difference(runner, 60)
    assert [fault for fault in runner.faults if "not its own" in fault] == []


@pytest.mark.parametrize(
    ("runner", "words"),
    [
        (Unlawful(minds_rows=True), "one by one"),
        (Unlawful(minds_others=True), "in pieces among prompts, in pieces among answers"),
    ],
)
def test_a_last_bit_that_differs_is_found_and_where(runner: FakeRunner, words: str) -> None:
    assert words in (find_difference(runner, 60) or "")


def test_without_room_to_try_nothing_is_claimed() -> None:
    assert "too small" in (find_difference(FakeRunner(num_blocks=3), 60) or "")


@pytest.mark.parametrize("num_blocks", [4, 5, 64])
@pytest.mark.parametrize("num_tokens", [4, 5, 13, 16, 60, 500])
def test_any_cache_and_length_will_do(num_blocks: int, num_tokens: int) -> None:
    runner = FakeRunner(num_blocks=num_blocks)
    assert find_difference(runner, num_tokens) is None
