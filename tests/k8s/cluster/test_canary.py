"""A canary: a few pods of the next generation behind production's Service."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from tests.k8s.cluster.generations import GOOD, OTHER
from tests.k8s.cluster.load import SHORT
from tests.k8s.cluster.manifests import Manifests
from tests.k8s.cluster.processes import wait
from tests.k8s.cluster.reports import say
from tests.k8s.cluster.rig import Rig
from tests.k8s.cluster.service import ROLLOUT_TIMEOUT_S, Service, ask

pytestmark = pytest.mark.cluster

NUM_REQUESTS = 300
NUM_STABLE = 2  # minReplicas of production


@pytest.fixture
def production(rig: Rig, manifests: Manifests) -> Iterator[Service]:
    service = Service.deploy(rig.kubectl, manifests, "production", GOOD)
    wait("the autoscaler's minimum serves", lambda: len(service.ready_pods()) == NUM_STABLE)
    yield service
    service.remove()


def test_a_canary_gets_its_share_and_goes_without_a_trace(production: Service) -> None:
    code, said = production.appliance("pin", "set", "canary", str(OTHER))
    assert code == 0, said
    production.kubectl.apply(production.manifests.rehearsal("canary"))
    production.kubectl(
        "rollout", "status", "deployment/llama-canary", f"--timeout={ROLLOUT_TIMEOUT_S}s"
    )
    wait("kube-proxy knows the canary", lambda: answered_by(production) == OTHER)
    shares = split(production)
    say(f"{NUM_STABLE} stable pods, 1 canary: {dict(shares)} of {NUM_REQUESTS} requests")
    expected = NUM_REQUESTS / (NUM_STABLE + 1)
    assert set(shares) == {GOOD, OTHER}
    assert expected / 2 < shares[OTHER] < expected * 1.5  # more than six standard deviations

    production.kubectl("delete", "deployment/llama-canary")
    production.wait_for_ends()
    assert set(split(production)) == {GOOD}


def split(service: Service) -> Counter[int]:
    """Which generation answered how often; kube-proxy chooses anew for each connection."""
    return Counter(answered_by(service) for _ in range(NUM_REQUESTS))


def answered_by(service: Service) -> int:
    identity = ask(service.address, SHORT.path, SHORT.body)["identity"]
    return int(identity["generation"].rpartition(":")[2])
