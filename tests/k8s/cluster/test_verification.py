"""What runs is compared with what was recorded of the generation."""

from __future__ import annotations

import json

import pytest

from tests.k8s.cluster.generations import GOOD, OVERWRITTEN, write_generation
from tests.k8s.cluster.packages import load_packages
from tests.k8s.cluster.rig import Rig
from tests.k8s.cluster.service import Service, ask_pod

pytestmark = pytest.mark.cluster

TAMPERED = 12  # exit code of `appliance rollout verify`


def record(service: Service) -> None:
    """Bind the generation that the overlay pins to what its servers say, and to its store paths."""
    version = json.dumps(ask_pod(service.ready_pods()[0], "/version"))
    packages = load_packages()
    paths = [f"--store-path={each.path}" for each in (packages.server, packages.model)]
    code, said = service.appliance(
        "pin", "record", service.overlay, "--identity=-", *paths, stdin=version
    )
    assert code == 0, said


def verify(service: Service) -> tuple[int, str]:
    return service.appliance("rollout", "verify", service.overlay)


def test_pods_that_run_what_was_recorded_are_verified(staging: Service) -> None:
    record(staging)
    code, said = verify(staging)
    assert code == 0, said
    assert said.count("reports acme/llama-runtime:1") == 2


def test_an_annotation_that_was_changed_on_a_pod_is_seen(staging: Service) -> None:
    record(staging)
    name = staging.ready_pods()[0]["metadata"]["name"]
    changed = "flox.dev/environment=acme/llama-runtime:2"
    staging.kubectl("annotate", "pod", name, changed, "--overwrite")
    code, said = verify(staging)
    staging.kubectl("delete", "pod", name, "--wait=false")
    staging.roll_out()
    assert code == TAMPERED, said
    assert "its annotation was changed since" in said


def test_a_generation_overwritten_on_the_hub_is_seen(rig: Rig, staging: Service) -> None:
    """The number is the same, and so is everything Kubernetes knows; only the hashes tell."""
    packages = load_packages()
    staging.run(OVERWRITTEN)
    record(staging)
    assert verify(staging)[0] == 0

    write_generation(rig.store, OVERWRITTEN, [packages.server, packages.other_model], packages.host)
    staging.kubectl("rollout", "restart", "deployment/llama")
    staging.roll_out()
    staging.wait_for_ends()
    code, said = verify(staging)
    assert staging.status()[0] == 0
    assert code == TAMPERED, said
    assert "weights" in said
    staging.run(GOOD)
