"""Every manifest fits the schemas of the oldest and the newest Kubernetes that we speak of."""

from __future__ import annotations

from pathlib import Path

import kubernetes_validate  # type: ignore[import-untyped]
import pytest

from tests.k8s.rendering import (
    CLUSTER_FILES,
    COMPONENTS,
    K8S,
    OVERLAYS,
    Object,
    load_file,
    rendered,
    with_components,
)

VERSIONS = ["1.30", "1.37"]
NOT_OF_KUBERNETES = {"ServiceMonitor"}  # of the Prometheus Operator, whose schema is not here


def validate(objects: list[Object], version: str) -> None:
    assert objects
    for each in objects:
        if each["kind"] not in NOT_OF_KUBERNETES:
            kubernetes_validate.validate(each, version, strict=True)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_fits_the_schema(overlay: str, version: str) -> None:
    validate(rendered(overlay), version)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("component", COMPONENTS)
def test_a_component_fits_the_schema(component: str, version: str, tmp_path: Path) -> None:
    validate(with_components(tmp_path, [component]), version)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", [*(f"cluster/{name}" for name in CLUSTER_FILES), "llama.yaml"])
def test_a_file_that_is_applied_as_it_is_fits_the_schema(name: str, version: str) -> None:
    validate(load_file(K8S / name), version)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_misspelt_field_does_not_fit(version: str) -> None:
    objects = load_file(K8S / "llama.yaml")
    deployment = next(each for each in objects if each["kind"] == "Deployment")
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    container["readynessProbe"] = container.pop("readinessProbe")
    with pytest.raises(kubernetes_validate.ValidationError, match="readynessProbe"):
        validate(objects, version)
