"""The cluster, up once for all scenarios, and what most of them begin with."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.k8s.cluster.generations import GOOD
from tests.k8s.cluster.manifests import Manifests
from tests.k8s.cluster.rig import CGROUP_VARIABLE, Rig
from tests.k8s.cluster.service import Service


@pytest.fixture(scope="session")
def rig() -> Iterator[Rig]:
    if CGROUP_VARIABLE not in os.environ:
        pytest.fail("these tests need namespaces of their own: run them by `make cluster-test`")
    rig = Rig()
    try:
        rig.up()
        yield rig
    finally:
        rig.down()


@pytest.fixture
def manifests(rig: Rig, tmp_path: Path) -> Manifests:
    return Manifests(tmp_path / "k8s")


@pytest.fixture
def staging(rig: Rig, manifests: Manifests) -> Service:
    """Generation 1 serves in llama-staging."""
    return Service.deploy(rig.kubectl, manifests, "staging", GOOD)
