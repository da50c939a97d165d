"""Nodes that are drained or may not run Flox: the Service goes on, or the pod says why it waits."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.k8s.cluster.kubectl import Kubectl
from tests.k8s.cluster.load import Load, lost, summary
from tests.k8s.cluster.node import NODE
from tests.k8s.cluster.processes import wait
from tests.k8s.cluster.reports import say
from tests.k8s.cluster.rig import Rig
from tests.k8s.cluster.service import Service

pytestmark = pytest.mark.cluster

LABEL = "flox.dev/enabled"


@pytest.fixture
def kubectl(rig: Rig) -> Iterator[Kubectl]:
    """The node is as it was afterwards."""
    yield rig.kubectl
    rig.kubectl("uncordon", NODE)
    rig.kubectl("label", "node", NODE, f"{LABEL}=true", "--overwrite")


def test_a_drain_evicts_one_server_and_waits_for_its_successor(
    kubectl: Kubectl, staging: Service
) -> None:
    """The one node is cordoned, so the successor cannot come: the budget keeps the other server."""
    wait("the budget allows one to go", lambda: num_allowed_to_go(staging) == 1)
    with Load(staging.address) as load:
        is_drained, said = kubectl.try_(
            "drain", NODE, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=20s"
        )
        staging.wait_for_ends()
    say(f"kubectl drain: {summary(load.answers)}")
    assert not is_drained
    assert "violate the pod's disruption budget" in said
    assert len(staging.ready_pods()) == 1
    assert not lost(load.answers)

    kubectl("uncordon", NODE)
    staging.roll_out()
    assert len(staging.ready_pods()) == 2


def num_allowed_to_go(service: Service) -> int:
    budget = service.kubectl.get("poddisruptionbudget", "llama")
    return int(budget["status"]["disruptionsAllowed"])


def test_a_pod_waits_while_no_node_is_prepared_for_flox(kubectl: Kubectl, staging: Service) -> None:
    kubectl("label", "node", NODE, f"{LABEL}-")
    staging.kubectl("delete", "pod", staging.pods()[0]["metadata"]["name"], "--wait=false")
    wait("the new pod waits", lambda: "node(s) didn't match" in staging.troubles())
    assert "Pending" in {pod["status"]["phase"] for pod in staging.pods()}

    kubectl("label", "node", NODE, f"{LABEL}=true")
    staging.roll_out()
