"""Finds the Deployments of an overlay and their pins, in what would be applied."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.errors import ReleaseError
from appliance_release.manifests.lint import KUSTOMIZATION, read_manifests, render
from appliance_release.pins.overlay_pin import OVERLAYS
from appliance_release.pins.reference import ANNOTATION
from appliance_release.programs import run_program
from appliance_release.rollout.state import Target

if TYPE_CHECKING:
    from pathlib import Path

    from appliance_release.programs import Run


def find_targets(directory: Path, overlay: str, run: Run = run_program) -> list[Target]:
    folder, file = directory / OVERLAYS / overlay, directory / f"{overlay}.yaml"
    if (folder / KUSTOMIZATION).is_file():
        manifests = render(folder, run)
    elif file.is_file():
        manifests = read_manifests(file)
    else:
        names = sorted(
            [path.parent.name for path in directory.glob(f"{OVERLAYS}/*/{KUSTOMIZATION}")]
            + [path.stem for path in directory.glob("*.yaml")]
        )
        known = f"There are: {', '.join(names)}." if names else "There is none."
        raise ReleaseError(f"There is no overlay {overlay!r} under {directory}. {known}")
    targets = []
    for manifest in manifests:
        pod = manifest.pod()
        if manifest.kind == "Deployment" and pod is not None and pod.runs_flox:
            targets.append(
                Target(
                    namespace=str(manifest.namespace or "default"),
                    deployment=str(manifest.name),
                    pinned=str(pod.annotations.get(ANNOTATION)),
                )
            )
    if not targets:
        raise ReleaseError(f"Overlay {overlay} has no Deployment that runs a Flox environment.")
    return targets
