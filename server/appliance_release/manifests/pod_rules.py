"""Checks that a pod's generation is known and alone decides what the pod runs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from appliance_release.manifests.kubernetes_manifest import SKIP, mapping, sequence, value_at
from appliance_release.pins.reference import ANNOTATION, EXAMPLE, why_not_pinned

if TYPE_CHECKING:
    from collections.abc import Iterator

    from appliance_release.manifests.kubernetes_manifest import Finding, PodTemplate
    from appliance_release.manifests.yaml_document import Path

NOTES = ("metadata", "annotations")
KNOWN_NOTES = {
    ANNOTATION,
    "flox.dev/activate-mode",
    "flox.dev/disable-metrics",
    "flox.dev/nix-mutable",
    SKIP,
    "flox.dev/skip-containers-exec",
}
EMPTY = "flox/empty:1.0.0"
EMPTY_IMAGES = {"flox/empty", "docker.io/flox/empty"}
DIGEST = re.compile(r"@sha256:[0-9a-f]{64}$")


def check_pin(pod: PodTemplate) -> Iterator[Finding]:
    value = pod.annotations.get(ANNOTATION)
    if value is None:
        if pod.manifest.is_whole:
            yield pod.finding(
                (*NOTES, ANNOTATION),
                "without it a Flox pod does not start.",
                f'Add it to the pod template\'s annotations, as in "{EXAMPLE}".',
            )
        return
    wrong = why_not_pinned(value)
    if wrong is not None:
        problem, _, remedy = wrong.partition(". ")
        yield pod.finding((*NOTES, ANNOTATION), f"it {problem}.", remedy)


def check_misplaced_pin(pod: PodTemplate) -> Iterator[Finding]:
    own = (*NOTES, ANNOTATION)
    if pod.path and pod.manifest.at(*own) is not None:
        yield pod.manifest.finding(
            own,
            "the shim reads the pod's annotations, not those of what makes the pod.",
            "Move it to the pod template's metadata.",
        )


def check_annotations(pod: PodTemplate) -> Iterator[Finding]:
    for name, value in pod.annotations.items():
        path = (*NOTES, name)
        if not isinstance(value, str) and name != ANNOTATION:
            yield pod.finding(path, "annotations are strings.", "Put it in quotes.")
        if name.startswith("flox.dev/") and name not in KNOWN_NOTES:
            known = ", ".join(sorted(KNOWN_NOTES))
            yield pod.finding(path, "Flox has no such annotation.", f"It has {known}.")
    if pod.annotations.get("flox.dev/activate-mode", "run") != "run":
        yield pod.finding(
            (*NOTES, "flox.dev/activate-mode"),
            "dev mode puts build tools and search paths of development into the pod.",
            'Remove it, or write "run".',
        )
    if pod.annotations.get("flox.dev/nix-mutable", "false") != "false":
        yield pod.finding(
            (*NOTES, "flox.dev/nix-mutable"),
            "a pod that can install packages is no longer what its generation says.",
            "Remove it.",
        )


def check_runtime(pod: PodTemplate) -> Iterator[Finding]:
    spec = mapping(pod.at("spec"))
    if spec.get("runtimeClassName") != "flox":
        yield pod.finding(
            ("spec", "runtimeClassName"),
            "only the flox runtime mounts the environment.",
            'Write "flox".',
        )
    if spec.get("enableServiceLinks") is not False:
        yield pod.finding(
            ("spec", "enableServiceLinks"),
            "Services of the namespace set variables in the pod, such as LLAMA_PORT.",
            "Write false.",
        )
    if spec.get("automountServiceAccountToken") is not False:
        yield pod.finding(
            ("spec", "automountServiceAccountToken"),
            "the server asks the Kubernetes API nothing, and the pod gets a token for it.",
            "Write false.",
        )
    if pod.manifest.is_whole and not any(pod.containers()):
        yield pod.finding(
            (*NOTES, SKIP),
            "no container is left that the environment is mounted in.",
            "Leave the server out of it.",
        )


def check_images(pod: PodTemplate) -> Iterator[Finding]:
    """Checks the image of every container: one outside of the generation must be pinned."""
    servers = [path for path, _ in pod.containers()]
    for path, container in pod.every_container():
        image = str(container.get("image", ""))
        name, _, tag = image.partition(":")
        is_empty = name in EMPTY_IMAGES
        if not DIGEST.search(image) and (not is_empty or tag in ("", "latest")):
            yield pod.finding(
                (*path, "image"),
                "it is no part of the generation, and can be another image tomorrow.",
                f'Write "{EMPTY}", which holds nothing, so that the environment is what runs; or '
                "an image by its digest, NAME@sha256:….",
            )
        if (is_empty or path in servers) and not sequence(container.get("command")):
            yield pod.finding(
                (*path, "command"),
                "services of a Flox environment do not run in pods, so nothing would.",
                "Name the launcher: [llama-server].",
            )


def check_security(pod: PodTemplate) -> Iterator[Finding]:
    """Checks Pod Security "restricted" and a read-only root file system."""
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.at("spec", name):
            yield pod.finding(("spec", name), "the pod would share the node's.", "Remove it.")
    for index, volume in enumerate(sequence(pod.at("spec", "volumes"))):
        for kind in sorted(mapping(volume).keys() - VOLUMES - {"name"}):
            yield pod.finding(
                ("spec", "volumes", index, kind),
                "the pod would see files that are neither its own nor the environment's.",
                "Use an emptyDir; the shim mounts what the environment needs.",
            )
    for path in (("spec",), *(path for path, _ in pod.every_container())):
        user = (*path, "securityContext", "runAsUser")
        if pod.at(*user) == 0:
            yield pod.finding(user, "that is root.", "Write 65532, or another user.")
    for path, container in pod.every_container():
        yield from _check_privilege(pod, path, container)


def _check_privilege(
    pod: PodTemplate, path: Path, container: dict[str, object]
) -> Iterator[Finding]:
    own = (*path, "securityContext")
    for names, wanted in RESTRICTED.items():
        found = value_at(container, ("securityContext", *names))
        if found is None and names in INHERITED:
            found = pod.at("spec", "securityContext", *names)
        if found != wanted:
            yield pod.finding(
                (*own, *names),
                "the pod may do more than a server needs.",
                f"Write {str(wanted).lower() if isinstance(wanted, bool) else wanted}.",
            )
    for names in PRIVILEGES:
        if value_at(container, ("securityContext", *names)):
            yield pod.finding((*own, *names), "the pod would own the node.", "Remove it.")
    for index, port in enumerate(sequence(container.get("ports"))):
        if "hostPort" in mapping(port):
            yield pod.finding(
                (*path, "ports", index, "hostPort"),
                "the node's own address would lead past the Service and its drain.",
                "Remove it.",
            )


RESTRICTED: dict[tuple[str, ...], object] = {
    ("runAsNonRoot",): True,
    ("seccompProfile", "type"): "RuntimeDefault",
    ("allowPrivilegeEscalation",): False,
    ("readOnlyRootFilesystem",): True,
    ("capabilities", "drop"): ["ALL"],
}
PRIVILEGES = (("privileged",), ("capabilities", "add"), ("procMount",))
# What Pod Security "restricted" lets a pod mount.
VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim",
    "projected", "secret",
}  # fmt: skip
INHERITED = {("runAsNonRoot",), ("seccompProfile", "type")}

ANNOTATION_RULES = (check_pin, check_misplaced_pin, check_annotations)
POD_RULES = (*ANNOTATION_RULES, check_runtime, check_images, check_security)
