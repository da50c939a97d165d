"""The table of laws holds, and would show a law that does not."""

from __future__ import annotations

import numpy as np
import pytest

from tests.engine.law_matrix import LAWS, Court, House
from tests.engine.ledger import Ledger


@pytest.fixture(scope="module")
def court() -> Court:
    return Court("int8")


@pytest.mark.parametrize("name", LAWS)
def test_the_law_holds(name: str, court: Court) -> None:
    cell = LAWS[name](court)
    assert cell.faults == []
    assert cell.num_values > 500_000


def test_a_bit_that_differs_is_found() -> None:
    ledger = Ledger()
    ledger.add([1, 2], np.array([0.5, 0.25], np.float32))
    ledger.add([1, 2], np.array([0.5, 0.25], np.float32))
    ledger.add([1, 2], np.array([0.5, 0.25000003], np.float32))
    ledger.add([2, 1], np.array([9.0, 9.0], np.float32))
    tally = ledger.take_tally()
    assert (tally.num_rows, tally.num_different_rows, tally.num_values) == (2, 1, 4)
    assert ledger.take_tally().num_rows == 0


def test_other_weights_and_other_answers_are_found(court: Court) -> None:
    stranger = Court("int4", ledger=Ledger(rows=dict(court.ledger.rows)))
    assert stranger.ledger.fingerprint != Court("int4").ledger.fingerprint
    stranger.alone = court.alone
    cell = stranger.try_house(House())
    assert "rows differ" in cell.faults[0]
    assert "answers" in cell.faults[1]


def test_a_trial_in_which_nothing_happened_is_a_fault(court: Court) -> None:
    cell = court.try_house(House(), has_happened=lambda observer: observer.num_preemptions > 0)
    assert cell.faults == ["it did not happen"]
