"""A canary: a few pods of the next generation behind production's Service."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from tests.k8s.cluster.generations import GOOD, OTHER
from tests.k8s.cluster.load import SHORT
from tests.k8s.cluster.manifests import Manifests
from tests.k8s.cluster.reports import say
from tests.k8s.cluster.rig import Rig
from tests.k8s.cluster.service import Service, ask

pytestmark = pytest.mark.cluster

NUM_REQUESTS = 300


@pytest.fixture
def production(rig: Rig, manifests: Manifests) -> Iterator[Service]:
    service = Service.deploy(rig.kubectl, manifests, "production", GOOD)
    yield service
    service.remove()


def test_a_canary_gets_its_share_and_goes_without_a_trace(production: Service) -> None:
    num_stable = len(production.ready_pods())
    code, said = production.appliance("pin", "set", "canary", str(OTHER))
    assert code == 0, said
    production.kubectl.apply(production.manifests.rehearsal("canary"))
    production.kubectl("rollout", "status", "deployment/llama-canary", "--timeout=60s")
    shares = split(production)
    say(f"{num_stable} stable pods, 1 canary: {dict(shares)} of {NUM_REQUESTS} requests")
    expected = NUM_REQUESTS / (num_stable + 1)
    assert set(shares) == {GOOD, OTHER}
    assert expected / 2 < shares[OTHER] < expected * 1.5  # more than six standard deviations

    production.kubectl("delete", "deployment/llama-canary")
    production.wait_for_ends()
    assert set(split(production)) == {GOOD}


def split(service: Service) -> Counter[int]:
    """Which generation answered how often; kube-proxy chooses anew for each connection."""
    answers = [ask(service.address, "/generate", SHORT) for _ in range(NUM_REQUESTS)]
    return Counter(int(each["identity"]["generation"].rpartition(":")[2]) for each in answers)
