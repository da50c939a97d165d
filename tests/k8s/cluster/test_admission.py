"""A real API server takes every object that the project ships, and refuses what is broken."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.k8s.cluster.compat import down_convert
from tests.k8s.cluster.manifests import Manifests, Object
from tests.k8s.cluster.reports import say
from tests.k8s.cluster.rig import Rig
from tests.k8s.rendering import COMPONENTS, OVERLAYS, with_components

pytestmark = pytest.mark.cluster

CUSTOM_RESOURCE = Path(__file__).with_name("service_monitor_crd.yaml")


@pytest.fixture(scope="module")
def namespaces(rig: Rig) -> None:
    """A dry run makes none, and objects must have theirs."""
    for name in ("llama", "llama-staging", "llama-production"):
        rig.kubectl.apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}])
    rig.kubectl("apply", f"--filename={CUSTOM_RESOURCE}")
    rig.kubectl(
        "wait", "--for=condition=established", "customresourcedefinition", "--all", "--timeout=240s"
    )


@pytest.mark.parametrize("overlay", OVERLAYS)
@pytest.mark.usefixtures("namespaces")
def test_every_object_of_an_overlay_is_admitted(
    rig: Rig, manifests: Manifests, overlay: str
) -> None:
    admit(rig, manifests.render(f"overlays/{overlay}"), overlay)


@pytest.mark.usefixtures("namespaces")
def test_the_file_for_one_server_is_admitted(rig: Rig, manifests: Manifests) -> None:
    admit(rig, manifests.read("llama.yaml"), "llama.yaml")


@pytest.mark.parametrize("component", COMPONENTS)
@pytest.mark.usefixtures("namespaces")
def test_every_component_is_admitted(rig: Rig, tmp_path: Path, component: str) -> None:
    admit(rig, with_components(tmp_path, [component]), component)


def test_what_a_cluster_needs_once_is_admitted(rig: Rig, manifests: Manifests) -> None:
    objects = [
        found
        for path in sorted((manifests.root / "cluster").glob("*.yaml"))
        for found in manifests.read(str(path))
    ]
    admit(rig, objects, "cluster")


@pytest.mark.usefixtures("namespaces")
def test_what_no_schema_notices_is_refused(rig: Rig, manifests: Manifests) -> None:
    good = deployment(manifests)
    for name, spoil in SLIPS.items():
        spoiled = copy.deepcopy(good)
        spoil(spoiled["spec"])
        is_admitted, said = rig.kubectl.try_(
            "apply", "--dry-run=server", "--filename=-", stdin=yaml.safe_dump(spoiled)
        )
        assert not is_admitted, f"{name}: {said}"


SLIPS: dict[str, Callable[[Object], object]] = {
    "a selector that is not the template's": lambda spec: spec["selector"]["matchLabels"].update(
        track="other"
    ),
    "a rollout that may neither add nor remove": lambda spec: spec["strategy"][
        "rollingUpdate"
    ].update(maxSurge=0),
    "an amount that is none": lambda spec: spec["template"]["spec"]["containers"][0]["resources"][
        "limits"
    ].update(memory="1Gigs"),
    "a mount of a volume that is not there": lambda spec: spec["template"]["spec"]["volumes"].pop(),
}


def deployment(manifests: Manifests) -> Object:
    objects = manifests.rehearsal("staging")
    return next(found for found in objects if found["kind"] == "Deployment")


def admit(rig: Rig, objects: list[Object], name: str) -> None:
    kept, changes = down_convert(objects)
    said = rig.kubectl("apply", "--dry-run=server", "--filename=-", stdin=yaml.safe_dump_all(kept))
    admitted = [line for line in said.splitlines() if line.endswith("(server dry run)")]
    assert len(admitted) == len(kept), said
    say(f"{name}: {len(admitted)} objects admitted; for Kubernetes 1.20: {'; '.join(changes)}")
