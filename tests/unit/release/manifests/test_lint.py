"""Each way to break the manifests that we ship is found, with file, field, value and remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.errors import ReleaseError
from appliance_release.manifests.kubernetes_manifest import quantity
from appliance_release.manifests.lint import lint, lint_paths, read_manifests
from appliance_release.programs import ProgramMissing
from tests.unit.release.manifests.broken_manifests import (
    BROKEN,
    K8S,
    PIN,
    Broken,
    Parts,
    beside,
    skipped,
)


@pytest.mark.parametrize("broken", BROKEN, ids=[broken.what for broken in BROKEN])
def test_a_broken_manifest_is_found_with_file_field_value_and_remedy(
    broken: Broken, tmp_path: Path
) -> None:
    parts = Parts()
    broken.break_it(parts)
    path = parts.write(tmp_path / "broken.yaml")
    findings = lint(read_manifests(path))
    matching = [
        each
        for each in findings
        if each.field.endswith(broken.field)
        and broken.value in each.value
        and broken.remedy in each.remedy
    ]
    assert matching, "\n".join(map(str, findings))
    said = str(matching[0])
    assert said.startswith(f"{path}:{matching[0].line}: ")
    assert matching[0].problem in said


def test_nothing_is_found_in_what_we_ship() -> None:
    assert lint(read_manifests(K8S / "llama.yaml")) == []


def test_nothing_is_found_beside_an_autoscaler(tmp_path: Path) -> None:
    parts = Parts()
    parts.with_autoscaler()
    assert lint(read_manifests(parts.write(tmp_path / "scaled.yaml"))) == []


def test_replicas_beside_an_autoscaler_are_found(tmp_path: Path) -> None:
    parts = Parts()
    parts.with_autoscaler()
    parts.deployment["spec"]["replicas"] = 2
    (finding,) = lint(read_manifests(parts.write(tmp_path / "scaled.yaml")))
    assert (finding.field, finding.value) == ("spec.replicas", "2")
    assert "minReplicas" in finding.remedy


def test_a_finding_names_the_line_of_the_field(tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    text = (K8S / "llama.yaml").read_text().replace("acme/llama-runtime:1", "acme/llama-runtime")
    path.write_text(text)
    (finding,) = lint(read_manifests(path))
    assert PIN in text.splitlines()[(finding.line or 0) - 1]


def test_pods_that_do_not_run_flox_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.yaml"
    path.write_text(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: a, namespace: b}\n"
        "spec: {containers: [{name: a, image: nginx}]}\n"
    )
    assert lint(read_manifests(path)) == []


def test_what_the_shim_skips_need_not_be_a_server(tmp_path: Path) -> None:
    parts = Parts()
    skipped(beside("containers"))(parts)
    beside("initContainers")(parts)
    assert lint(read_manifests(parts.write(tmp_path / "sidecar.yaml"))) == []


def test_an_overlay_with_two_pins_is_refused(tmp_path: Path) -> None:
    overlay = tmp_path / "overlays" / "staging"
    overlay.mkdir(parents=True)
    (overlay / "kustomization.yaml").write_text("resources: []\n")
    for name in ("pin.yaml", "other.yaml"):
        (overlay / name).write_text(f'{PIN}: "a/b:1"\n')
    with pytest.raises(ReleaseError, match=r"pinned more than once: .*other.yaml:1 and .*pin"):
        lint_paths([tmp_path])


def missing(command: list[str], /, *, timeout_s: float = 60.0) -> str:
    raise ProgramMissing("kubectl is not installed, or not on the PATH.")


def test_without_kubectl_the_files_are_checked_one_by_one_and_that_is_said() -> None:
    findings, notes = lint_paths([K8S], missing)
    assert findings == []
    assert "the overlays were not rendered" in notes[0]


def test_without_kubectl_a_broken_base_and_an_unpinned_overlay_are_found(tmp_path: Path) -> None:
    for folder in ("base", "overlays"):
        for path in sorted((K8S / folder).rglob("*.yaml")):
            copied = tmp_path / path.relative_to(K8S)
            copied.parent.mkdir(parents=True, exist_ok=True)
            text = path.read_text().replace("livenessProbe", "liveProbe")
            copied.write_text(text.replace("acme/llama-runtime:1", "acme/llama-runtime@1"))
    findings, _ = lint_paths([tmp_path], missing)
    fields = {finding.field.rpartition(".")[2] for finding in findings}
    assert fields == {"livenessProbe", 'dev/environment"]'}
    assert len(findings) == 1 + len(list((K8S / "overlays").iterdir()))


def test_what_kubectl_renders_is_linted(tmp_path: Path) -> None:
    (tmp_path / "kustomization.yaml").write_text("resources: []\n")
    text = (K8S / "llama.yaml").read_text().replace("acme/llama-runtime:1", "acme/llama-runtime")

    def render(command: list[str], /, *, timeout_s: float = 60.0) -> str:
        assert command == ["kubectl", "kustomize", str(tmp_path)]
        return text

    ((finding,), _) = lint_paths([tmp_path], render)
    assert finding.line is None
    assert str(finding).startswith(f"{tmp_path}: Deployment/llama: ")


def test_an_unpinned_overlay_is_found_where_its_pin_stands(tmp_path: Path) -> None:
    pin = tmp_path / "overlays" / "staging" / "pin.yaml"
    pin.parent.mkdir(parents=True)
    (pin.parent / "kustomization.yaml").write_text("resources: []\n")
    pin.write_text(f'# unpinned\n{PIN}: "acme/llama-runtime"\n')
    text = (K8S / "llama.yaml").read_text().replace("acme/llama-runtime:1", "acme/llama-runtime")

    def render(command: list[str], /, *, timeout_s: float = 60.0) -> str:
        return text

    ((finding,), _) = lint_paths([tmp_path], render)
    assert str(finding).startswith(f"{pin}:2: Deployment/llama: ")


def test_a_file_without_an_object_does_not_pass(tmp_path: Path) -> None:
    path = tmp_path / "deployment.yaml"
    path.write_text("# kind: Deployment\n")
    with pytest.raises(ReleaseError, match=r"deployment\.yaml holds no Kubernetes object"):
        lint_paths([path])


def test_a_path_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match="nowhere does not exist"):
        lint_paths([tmp_path / "nowhere"])


def test_a_directory_without_manifests_is_named(tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match="has neither manifests nor overlays/"):
        lint_paths([tmp_path])


@pytest.mark.parametrize(
    ("text", "amount"),
    [("500m", 0.5), ("2", 2), (3, 3), ("1Gi", 2**30), ("1G", 1e9), ("1Gibt", None), (None, None)],
)
def test_amounts_are_read_as_kubernetes_writes_them(text: object, amount: float | None) -> None:
    assert quantity(text) == amount
