"""What the manifests mean: pins, selectors, ports, drains, autoscaling, and what is apart."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from appliance.metrics import Metrics
from appliance.models.options import load_configuration
from appliance_release.manifests.kubernetes_manifest import quantity
from appliance_release.manifests.lint import lint_paths
from appliance_release.pins.overlay_pin import find_pins
from appliance_release.pins.reference import ANNOTATION, why_not_pinned
from tests.k8s.rendering import (
    COMPONENTS,
    K8S,
    OVERLAYS,
    REPOSITORY,
    Object,
    load_file,
    need_kubectl,
    only,
    rendered,
    rendered_text,
    with_components,
)

CLUSTER_WIDE = {"Namespace", "RuntimeClass"}
CLOSING_S = 5


@pytest.fixture(params=[*OVERLAYS, "llama.yaml"])
def objects(request: pytest.FixtureRequest) -> list[Object]:
    name = request.param
    return load_file(K8S / name) if name.endswith(".yaml") else rendered(name)


def template(objects: list[Object]) -> Object:
    found: Object = only(objects, "Deployment")["spec"]["template"]
    return found


def container(objects: list[Object]) -> Object:
    (found,) = template(objects)["spec"]["containers"]
    made: Object = found
    return made


def test_our_own_linter_finds_nothing() -> None:
    need_kubectl()
    findings, notes = lint_paths([K8S])
    assert findings == []
    assert notes == []


def test_the_pin_stands_in_exactly_one_line_of_each_overlay() -> None:
    pins = {pin.overlay: pin for pin in find_pins(K8S)}
    assert set(pins) == {*OVERLAYS, "llama"}
    for overlay in OVERLAYS:
        assert pins[overlay].path == K8S / "overlays" / overlay / "pin.yaml"


def test_no_pin_stands_outside_the_overlays_and_the_plain_manifest() -> None:
    for path in [*K8S.glob("base/**/*.yaml"), *K8S.glob("components/**/*.yaml")]:
        assert not re.search(rf"^\s*{ANNOTATION}:", path.read_text(), re.MULTILINE), path


def test_a_pod_is_pinned_and_runs_the_launcher_in_the_flox_runtime(objects: list[Object]) -> None:
    pod = template(objects)
    assert why_not_pinned(pod["metadata"]["annotations"][ANNOTATION]) is None
    assert pod["spec"]["runtimeClassName"] == "flox"
    assert container(objects)["image"] == "flox/empty:1.0.0"
    assert container(objects)["command"] == ["llama-server"]


def test_a_new_generation_changes_one_line_of_what_is_applied(tmp_path: Path) -> None:
    need_kubectl()
    subprocess.run(["cp", "-r", str(K8S), str(tmp_path / "k8s")], check=True, timeout=60)
    pin = tmp_path / "k8s" / "overlays" / "production" / "pin.yaml"
    pin.write_text(re.sub(r":\d+\"$", ':99"', pin.read_text(), flags=re.MULTILINE))
    before = rendered_text(K8S / "overlays" / "production").splitlines()
    after = rendered_text(tmp_path / "k8s" / "overlays" / "production").splitlines()
    changed = [pair for pair in zip(before, after, strict=True) if pair[0] != pair[1]]
    assert len(changed) == 1
    assert changed[0][1].strip() == "flox.dev/environment: acme/llama-runtime:99"


def test_a_pod_goes_to_nodes_that_its_environment_is_published_for(objects: list[Object]) -> None:
    path = REPOSITORY / "llama-runtime" / ".flox" / "env" / "manifest.toml"
    (system,) = tomllib.loads(path.read_text())["options"]["systems"]
    chosen = template(objects)["spec"]["nodeSelector"]
    architecture = {"amd64": "x86_64", "arm64": "aarch64"}[chosen["kubernetes.io/arch"]]
    assert system == f"{architecture}-{chosen['kubernetes.io/os']}"


def test_a_pod_asks_for_all_the_disk_that_it_may_fill(objects: list[Object]) -> None:
    volumes = template(objects)["spec"]["volumes"]
    sizes = [quantity(each["emptyDir"]["sizeLimit"]) for each in volumes if "emptyDir" in each]
    asked = quantity(container(objects)["resources"]["requests"]["ephemeral-storage"])
    assert asked == sum(filter(None, sizes))


def test_every_object_has_a_namespace(objects: list[Object]) -> None:
    namespaces = {
        each["metadata"].get("namespace") for each in objects if each["kind"] not in CLUSTER_WIDE
    }
    assert len(namespaces) == 1
    assert None not in namespaces


def test_a_namespace_enforces_pod_security(objects: list[Object]) -> None:
    for each in objects:
        if each["kind"] == "Namespace":
            labels = each["metadata"]["labels"]
            assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


def test_the_runtime_class_is_not_part_of_an_overlay() -> None:
    for overlay in OVERLAYS:
        assert "RuntimeClass" not in {each["kind"] for each in rendered(overlay)}


def test_the_plain_manifest_has_the_runtime_class_first() -> None:
    kinds = [each["kind"] for each in load_file(K8S / "llama.yaml")]
    assert kinds[:2] == ["RuntimeClass", "Namespace"]


def test_a_directory_that_is_applied_as_it_is_holds_no_kustomization() -> None:
    for folder in (K8S, K8S / "cluster"):
        assert not (folder / "kustomization.yaml").exists()


def test_applying_the_directory_reads_the_plain_manifest_and_nothing_else() -> None:
    need_kubectl()
    command = ["kubectl", "annotate", "--local", "-f", f"{K8S}/", "a=b", "-o", "name"]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    read = [line.partition(".")[0].partition("/")[0] for line in said.splitlines()]
    kinds = [each["kind"].lower() for each in load_file(K8S / "llama.yaml")]
    assert read == kinds


def test_the_plain_manifest_is_what_the_base_says(tmp_path: Path) -> None:
    need_kubectl()
    fresh = tmp_path / "llama.yaml"
    subprocess.run(["scripts/manifest.sh", str(fresh)], cwd=REPOSITORY, check=True, timeout=60)
    assert fresh.read_text() == (K8S / "llama.yaml").read_text(), "run `make manifest`"


def test_the_service_reaches_the_port_of_every_track() -> None:
    service = only(rendered("production"), "Service")["spec"]
    (port,) = service["ports"]
    for overlay in ("production", "canary"):
        pod = template(rendered(overlay))
        assert service["selector"].items() <= pod["metadata"]["labels"].items()
        (own,) = container(rendered(overlay))["ports"]
        assert (port["targetPort"], own["containerPort"]) == (own["name"], 8000)


def test_production_does_not_take_the_pods_of_its_canary() -> None:
    stable = only(rendered("production"), "Deployment")["spec"]["selector"]["matchLabels"]
    canary = template(rendered("canary"))["metadata"]["labels"]
    assert not stable.items() <= canary.items()


def test_the_canary_adds_nothing_but_a_deployment() -> None:
    assert [each["kind"] for each in rendered("canary")] == ["Deployment"]


def test_the_probes_ask_for_what_they_are_about(objects: list[Object]) -> None:
    asked = {
        name: container(objects)[name]["httpGet"]["path"]
        for name in ("startupProbe", "readinessProbe", "livenessProbe")
    }
    assert asked == {
        "startupProbe": "/readyz",
        "readinessProbe": "/readyz",
        "livenessProbe": "/livez",
    }


def test_the_server_accepts_every_variable_that_is_set(objects: list[Object]) -> None:
    variables = {
        each["name"]: each.get("value", "2") for each in container(objects)["env"] if each["name"]
    }
    configuration = load_configuration(variables)
    assert configuration.settings.host == "0.0.0.0"  # noqa: S104 - compared, not bound
    assert configuration.models[0].threads == 2


def test_the_grace_period_has_room_for_the_whole_drain(objects: list[Object]) -> None:
    variables = {each["name"]: each.get("value") for each in container(objects)["env"]}
    drain_s = float(variables["APPLIANCE_DRAIN_DELAY_S"]) + float(
        variables["APPLIANCE_DRAIN_TIMEOUT_S"]
    )
    assert template(objects)["spec"]["terminationGracePeriodSeconds"] > drain_s + CLOSING_S


def test_threads_are_those_that_were_requested(objects: list[Object]) -> None:
    (threads,) = [each for each in container(objects)["env"] if each["name"] == "APPLIANCE_THREADS"]
    assert threads["valueFrom"]["resourceFieldRef"]["resource"] == "requests.cpu"


def test_the_autoscaler_reads_gauges_that_the_server_exports() -> None:
    scaler = only(rendered("production"), "HorizontalPodAutoscaler")["spec"]
    names = {metric["pods"]["metric"]["name"] for metric in scaler["metrics"]}
    gauges = {metric.name for metric in Metrics().collect() if metric.type == "gauge"}
    assert names == {"appliance_waiting_sequences", "appliance_running_sequences"}
    assert names <= gauges


def test_the_autoscaler_is_not_contradicted_by_replicas() -> None:
    assert "replicas" not in only(rendered("production"), "Deployment")["spec"]


def test_a_node_can_be_drained_one_server_at_a_time() -> None:
    budget = only(rendered("production"), "PodDisruptionBudget")["spec"]
    assert budget["maxUnavailable"] == 1
    assert budget["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


def test_nothing_leaves_the_pod(objects: list[Object]) -> None:
    for each in objects:
        if each["kind"] == "NetworkPolicy":
            assert each["spec"]["policyTypes"] == ["Ingress", "Egress"]
            assert each["spec"]["egress"] == []


def test_scarce_gpus_are_freed_before_they_are_taken(tmp_path: Path) -> None:
    objects = with_components(tmp_path, ["gpu", "gpu-scarce"])
    deployment = only(objects, "Deployment")["spec"]
    assert deployment["strategy"]["rollingUpdate"] == {"maxUnavailable": 1, "maxSurge": 0}
    assert container(objects)["resources"]["limits"]["nvidia.com/gpu"] == "1"
    variables = {each["name"]: each.get("value") for each in container(objects)["env"]}
    assert variables["APPLIANCE_DEVICE"] == "cuda"
    assert variables["APPLIANCE_HOST"] == "0.0.0.0"  # noqa: S104 - compared, not bound


@pytest.mark.parametrize("component", COMPONENTS)
def test_what_a_component_adds_is_in_the_overlays_namespace(component: str, tmp_path: Path) -> None:
    for each in with_components(tmp_path, [component]):
        if each["kind"] not in CLUSTER_WIDE:
            assert each["metadata"]["namespace"] == "llama-staging"


def test_metrics_are_scraped_where_they_are_served(tmp_path: Path) -> None:
    objects = with_components(tmp_path, ["service-monitor"])
    (endpoint,) = only(objects, "ServiceMonitor")["spec"]["endpoints"]
    assert endpoint["path"] == "/metrics"
    assert endpoint["port"] in {port["name"] for port in only(objects, "Service")["spec"]["ports"]}
    selected = only(objects, "ServiceMonitor")["spec"]["selector"]["matchLabels"]
    assert selected.items() <= only(objects, "Service")["metadata"]["labels"].items()
