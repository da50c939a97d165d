"""Generations rolled forward and back under constant load: nothing that a client sent is lost."""

from __future__ import annotations

import json
import time

import pytest

from tests.k8s.cluster.generations import ABSENT, BROKEN, GOOD, OTHER
from tests.k8s.cluster.load import NUM_SLOW_READERS, Load, lost, summary
from tests.k8s.cluster.processes import wait
from tests.k8s.cluster.reports import say
from tests.k8s.cluster.service import Service

pytestmark = pytest.mark.cluster

SETTLED_S = 4.0
# How long streams in flight last beyond the moment at which the last old pod was told to end: more
# than the second that a pod without a drain has, less than the drain waits.
HELD_S = 5.0
UNFINISHED = 14  # exit code of `appliance rollout status`


def test_nothing_is_lost_between_generations_good_broken_and_absent(staging: Service) -> None:
    before = staging.hear_all()
    with Load(staging.address) as load:
        time.sleep(SETTLED_S)
        forward = roll(staging, load, OTHER)
        other = staging.hear_all()
        fail(staging, load, BROKEN, "code 3, the model is refused")
        restore(staging, OTHER)
        fail(staging, load, ABSENT, "has no generation 9")
        back = roll(staging, load, GOOD)
    say(f"in all: {summary(load.answers)}")
    say(f"from apply to the first answer of the new generation {forward:.1f} s, back {back:.1f} s")
    assert not lost(load.answers)
    assert before != other
    assert staging.hear_all() == before


def test_without_a_drain_requests_are_lost(staging: Service) -> None:
    """So the test above can fail: the same rollout, of servers that end when they are told to."""
    drainless = {
        "terminationGracePeriodSeconds": 1,
        "containers": [
            {
                "name": "llama",
                "env": [
                    {"name": "APPLIANCE_DRAIN_DELAY_S", "value": "0"},
                    {"name": "APPLIANCE_DRAIN_TIMEOUT_S", "value": "0"},
                ],
            }
        ],
    }
    patch = json.dumps({"spec": {"template": {"spec": drainless}}})
    staging.kubectl("patch", "deployment", "llama", f"--patch={patch}")
    staging.roll_out()
    staging.wait_for_ends()
    with Load(staging.address) as load:
        time.sleep(SETTLED_S)
        with load.streams_held():
            restarted_at = time.monotonic()
            staging.kubectl("rollout", "restart", "deployment/llama")
            staging.roll_out()
            time.sleep(HELD_S)
    say(f"without a drain: {summary(load.answers)}")
    begun_before = [each for each in load.answers if each.sent_at < restarted_at < each.ended_at]
    assert len(lost(begun_before)) >= NUM_SLOW_READERS


def roll(service: Service, load: Load, generation: int) -> float:
    """Seconds from apply to the first answer of the new generation, under load all the while."""
    with load.streams_held():
        applied_at = service.pin(generation)
        service.roll_out()
        rolled_s = time.monotonic() - applied_at
        time.sleep(HELD_S)
        released_at = time.monotonic()
    service.wait_for_ends()
    gone_s = time.monotonic() - applied_at
    first_at = load.first_answer_at(generation, since=applied_at)
    assert first_at is not None
    spanning = [
        each for each in load.answers if each.sent_at < applied_at < released_at < each.ended_at
    ]
    say(
        f"to generation {generation}: first answer after {first_at - applied_at:.1f} s, rolled out"
        f" after {rolled_s:.1f} s, no old pod after {gone_s:.1f} s;"
        f" {len(spanning)} streams begun before lasted until all old pods were told to end;"
        f" {summary(load.since(applied_at))}"
    )
    assert len(spanning) >= NUM_SLOW_READERS
    return first_at - applied_at


def fail(service: Service, load: Load, generation: int, reason: str) -> None:
    """The rollout does not go on, our command says why, and the old generation serves on."""
    applied_at = service.pin(generation)
    seconds = wait(reason, lambda: reason in service.status()[1])
    time.sleep(SETTLED_S)
    served = load.since(applied_at)
    say(f"generation {generation}: its reason known after {seconds:.1f} s; {summary(served)}")
    assert service.status()[0] == UNFINISHED
    assert len(service.ready_pods()) == 2
    assert not [answer for answer in served if answer.generation == generation]


def restore(service: Service, generation: int) -> None:
    """As an operator would in a hurry: `kubectl rollout undo`; the pin then follows."""
    began_at = time.monotonic()
    service.kubectl("rollout", "undo", "deployment/llama")
    service.roll_out()
    say(f"undone in {time.monotonic() - began_at:.1f} s")
    service.pin(generation)
    service.roll_out()
