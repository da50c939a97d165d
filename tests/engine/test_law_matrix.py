"""The table of laws holds, and would show a law that does not."""

from __future__ import annotations

import numpy as np
import pytest

from tests.engine.law_matrix import LAWS, Setup, Trials
from tests.engine.logit_record import LogitRecord


@pytest.fixture(scope="module")
def trials() -> Trials:
    return Trials("int8")


@pytest.mark.parametrize("name", LAWS)
def test_the_law_holds(name: str, trials: Trials) -> None:
    cell = LAWS[name](trials)
    assert cell.faults == []
    assert cell.num_values > 500_000


def test_a_bit_that_differs_is_found() -> None:
    record = LogitRecord()
    record.add([1, 2], np.array([0.5, 0.25], np.float32))
    record.add([1, 2], np.array([0.5, 0.25], np.float32))
    record.add([1, 2], np.array([0.5, 0.25000003], np.float32))
    record.add([2, 1], np.array([9.0, 9.0], np.float32))
    comparison = record.take_comparison()
    assert (comparison.num_rows, comparison.num_different_rows, comparison.num_values) == (2, 1, 4)
    assert record.take_comparison().num_rows == 0


def test_other_weights_and_other_answers_are_found(trials: Trials) -> None:
    stranger = Trials("int4", record=LogitRecord(rows=dict(trials.record.rows)))
    assert stranger.record.fingerprint != Trials("int4").record.fingerprint
    stranger.alone = trials.alone
    cell = stranger.try_setup(Setup())
    assert "rows differ" in cell.faults[0]
    assert "answers" in cell.faults[1]


def test_a_trial_in_which_nothing_happened_is_a_fault(trials: Trials) -> None:
    cell = trials.try_setup(Setup(), has_happened=lambda observer: observer.num_preemptions > 0)
    assert cell.faults == ["it did not happen"]
