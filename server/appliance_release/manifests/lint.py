"""Checks Kubernetes manifests of the server: rendered overlays, and files applied as they are.

This is no schema check: a dry run on a server does that better.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from appliance.errors import ReleaseError
from appliance_release.manifests.content_rules import CONTENT_RULES
from appliance_release.manifests.kubernetes_manifest import Finding, Manifest, mapping
from appliance_release.manifests.object_rules import OBJECT_RULES, check_network, check_secrets
from appliance_release.manifests.pod_rules import ANNOTATION_RULES, POD_RULES
from appliance_release.manifests.server_rules import SERVER_RULES
from appliance_release.manifests.yaml_document import Document, read_documents
from appliance_release.pins.overlay_pin import OVERLAYS, find_pins
from appliance_release.pins.reference import ANNOTATION
from appliance_release.programs import ProgramMissing, run_program

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from appliance_release.pins.overlay_pin import Pin
    from appliance_release.programs import Run

KUSTOMIZATION = "kustomization.yaml"
KUSTOMIZATIONS = (KUSTOMIZATION, "kustomization.yml", "Kustomization")
SUFFIXES = {".yaml", ".yml", ".json"}  # that kubectl reads of a directory
KUSTOMIZE_KINDS = {"Kustomization", "Component"}
WHOLE_POD_RULES = POD_RULES + SERVER_RULES + CONTENT_RULES
PART_RULES = (check_secrets, check_network)  # that need to see one object only


def lint_paths(paths: Sequence[Path], run: Run = run_program) -> tuple[list[Finding], list[str]]:
    """Returns all findings, and notes on what could not be checked."""
    findings: list[Finding] = []
    notes: list[str] = []
    for path in paths:
        if not path.exists():
            raise ReleaseError(f"{path} does not exist. Name a manifest or a directory of them.")
        if path.is_dir():
            findings += _lint_directory(path, run, notes)
        elif manifests := read_manifests(path):
            findings += lint(manifests)
        else:
            raise ReleaseError(f"{path} holds no Kubernetes object, so there is nothing to check.")
    return findings, notes


def lint(manifests: Sequence[Manifest]) -> list[Finding]:
    """Checks objects that are applied together."""
    findings = []
    for manifest in manifests:
        pod = manifest.pod()
        if pod is not None and pod.runs_flox:
            rules = (
                POD_RULES + SERVER_RULES + CONTENT_RULES
                if any(pod.every_container())
                else ANNOTATION_RULES
            )
            findings += [finding for rule in rules for finding in rule(pod)]
    is_whole = all(manifest.is_whole for manifest in manifests)
    for object_rule in OBJECT_RULES if is_whole else PART_RULES:
        findings += object_rule(manifests)
    return findings


def read_manifests(path: Path, *, is_whole: bool = True) -> list[Manifest]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ReleaseError(f"{path} cannot be read: {error}.") from None
    return [
        Manifest(source=str(path), document=document, is_whole=is_whole)
        for listed in read_documents(text, str(path))
        for document in unlisted(listed)
        if isinstance(document.value, dict) and "kind" in document.value
    ]


def render(overlay: Path, run: Run = run_program) -> list[Manifest]:
    """Renders what `kubectl apply -k` would apply."""
    text = run(["kubectl", "kustomize", str(overlay)])
    return [
        Manifest(source=str(overlay), document=document, has_lines=False)
        for listed in read_documents(text, f"what kubectl renders of {overlay}")
        for document in unlisted(listed)
    ]


def unlisted(document: Document) -> Iterator[Document]:
    """Yields the objects of a `kind: List`, or the document itself."""
    value = mapping(document.value)
    items = value.get("items")
    if not str(value.get("kind")).endswith("List") or not isinstance(items, list):
        yield document
        return
    for index, item in enumerate(items):
        lines = {
            path[2:]: line for path, line in document.lines.items() if path[:2] == ("items", index)
        }
        yield from unlisted(Document(item, lines))


def files_of(directory: Path) -> list[Path]:
    return sorted(path for path in directory.glob("*") if path.suffix in SUFFIXES)


def _lint_directory(directory: Path, run: Run, notes: list[str]) -> Iterator[Finding]:
    if any((directory / name).is_file() for name in KUSTOMIZATIONS):
        yield from lint(render(directory, run))
        return
    whole = [*files_of(directory), *files_of(directory / "cluster")]
    for path in whole:
        yield from lint(read_manifests(path))
    overlays = sorted(path.parent for path in directory.glob(f"{OVERLAYS}/*/{KUSTOMIZATION}"))
    if not whole and not overlays:
        raise ReleaseError(
            f"{directory} has neither manifests nor {OVERLAYS}/ with kustomizations."
        )
    pins = {pin.overlay: pin for pin in find_pins(directory)} if overlays else {}
    try:
        for overlay in overlays:
            for finding in lint(render(overlay, run)):
                yield _at_the_pin(finding, pins[overlay.name])
    except ProgramMissing:
        notes.append(
            "kubectl is not installed, so the overlays were not rendered: their files were checked "
            "one by one, and not what they become together."
        )
        yield from _lint_parts(directory)


def _at_the_pin(finding: Finding, pin: Pin) -> Finding:
    """Moves a finding about a pin to the line in the overlay's own file."""
    if ANNOTATION not in finding.field:
        return finding
    return replace(finding, file=str(pin.path), line=pin.line)


def _lint_parts(directory: Path) -> Iterator[Finding]:
    for path in sorted(each for each in directory.rglob("*") if each.suffix in SUFFIXES):
        is_part = path.parent not in (directory, directory / "cluster")
        if is_part and path.name not in KUSTOMIZATIONS:
            parts = read_manifests(path, is_whole=False)
            yield from lint([part for part in parts if part.kind not in KUSTOMIZE_KINDS])
