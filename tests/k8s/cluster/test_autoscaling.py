"""The autoscaler, driven by what our servers say of their queues."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.k8s.cluster.custom_metrics import CustomMetrics
from tests.k8s.cluster.generations import GOOD
from tests.k8s.cluster.load import LONG
from tests.k8s.cluster.manifests import Manifests
from tests.k8s.cluster.processes import wait
from tests.k8s.cluster.reports import say
from tests.k8s.cluster.rig import Rig
from tests.k8s.cluster.service import Service, ask

pytestmark = pytest.mark.cluster

NUM_CLIENTS = 20
QUESTION = LONG.body | {"stream": False, "max_tokens": 300}
LIMIT_S = 300


@pytest.fixture
def metrics(rig: Rig, tmp_path: Path) -> Iterator[CustomMetrics]:
    with CustomMetrics(rig.kubectl, tmp_path) as metrics:
        yield metrics


@pytest.fixture
def production(rig: Rig, metrics: CustomMetrics, manifests: Manifests) -> Iterator[Service]:
    service = Service.deploy(rig.kubectl, manifests, "production", GOOD)
    yield service
    service.remove()


def test_a_queue_brings_servers_and_they_go_when_it_is_gone(
    production: Service, metrics: CustomMetrics
) -> None:
    def replicas() -> int:
        count: int = production.kubectl.get("deployment", "llama")["spec"]["replicas"]
        return count

    wait("the autoscaler keeps its minimum", lambda: replicas() == 2, LIMIT_S)
    ended = threading.Event()
    clients = [
        threading.Thread(target=keep_asking, args=(production, ended)) for _ in range(NUM_CLIENTS)
    ]
    for client in clients:
        client.start()
    try:
        grown_s = wait("servers come", lambda: replicas() > 2, LIMIT_S)
        wait("they serve", lambda: len(production.ready_pods()) > 2, LIMIT_S)
        most = replicas()
    finally:
        ended.set()
        ended_at = time.monotonic()
        for client in clients:
            client.join()
    wait("servers go", lambda: replicas() == 2, LIMIT_S)
    shrunk_s = time.monotonic() - ended_at
    queue = max(metrics.seen["appliance_waiting_sequences"])
    say(
        f"autoscaling: {NUM_CLIENTS} clients, a queue of {queue}: from 2 to {most} servers in"
        f" {grown_s:.0f} s, back to 2 in {shrunk_s:.0f} s after the clients stopped"
    )
    why = production.troubles()
    assert "pods metric appliance_waiting_sequences above target" in why


def keep_asking(service: Service, ended: threading.Event) -> None:
    while not ended.is_set():
        ask(service.address, LONG.path, QUESTION)
