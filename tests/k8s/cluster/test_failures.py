"""Generations that must not serve: the old one goes on, and our command says why."""

from __future__ import annotations

import pytest

from tests.k8s.cluster.generations import DEAF, GOOD, TAMPERED
from tests.k8s.cluster.load import Load, lost, summary
from tests.k8s.cluster.processes import wait
from tests.k8s.cluster.reports import say
from tests.k8s.cluster.service import Service

pytestmark = pytest.mark.cluster

UNFINISHED = 14


@pytest.mark.parametrize(
    ("generation", "reason"),
    [
        pytest.param(TAMPERED, "is not the file that model.lock.json pins", id="tampered"),
        pytest.param(DEAF, "Startup probe failed", id="never-ready"),
    ],
)
def test_a_generation_that_must_not_serve_does_not_replace_the_old_one(
    staging: Service, generation: int, reason: str
) -> None:
    with Load(staging.address) as load:
        staging.pin(generation)
        seconds = wait(reason, lambda: reason in staging.status()[1])
        code, said = staging.status()
    say(f"reason known after {seconds:.1f} s; {summary(load.answers)}\n{said}")
    assert code == UNFINISHED
    assert not lost(load.answers)
    assert {answer.generation for answer in load.answers} <= {GOOD, None}

    staging.run(GOOD)
    assert staging.status()[0] == 0
