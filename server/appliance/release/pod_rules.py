"""What a pod must say so that its generation is known and decides alone what it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.release.kubernetes_manifest import mapping, sequence, value_at
from appliance.release.reference import ANNOTATION, EXAMPLE, why_not_pinned

if TYPE_CHECKING:
    from collections.abc import Iterator

    from appliance.release.kubernetes_manifest import Finding, PodTemplate

NOTES = ("metadata", "annotations")
KNOWN_NOTES = {
    ANNOTATION,
    "flox.dev/activate-mode",
    "flox.dev/disable-metrics",
    "flox.dev/nix-mutable",
    "flox.dev/skip-containers",
    "flox.dev/skip-containers-exec",
}


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
            "without the flox runtime nobody mounts the environment.",
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
    for path, container in pod.containers():
        yield from _check_container(pod, (*path,), container)


def _check_container(
    pod: PodTemplate, path: tuple[str | int, ...], container: dict[str, object]
) -> Iterator[Finding]:
    image = str(container.get("image", ""))
    _, _, tag = image.rpartition("/")[2].partition(":")
    if "@sha256:" not in image and tag in ("", "latest"):
        yield pod.finding(
            (*path, "image"),
            "an image without a fixed tag can be another one tomorrow.",
            'Write "flox/empty:1.0.0", which holds nothing: the environment is what runs.',
        )
    if not sequence(container.get("command")):
        yield pod.finding(
            (*path, "command"),
            "services of a Flox environment do not run in pods, so nothing would.",
            "Name the launcher: [llama-server].",
        )


def check_security(pod: PodTemplate) -> Iterator[Finding]:
    """Pod Security "restricted", and a root file system that cannot be written."""
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.at("spec", name):
            yield pod.finding(("spec", name), "the pod would share the node's.", "Remove it.")
    for index, volume in enumerate(sequence(pod.at("spec", "volumes"))):
        if "hostPath" in mapping(volume):
            yield pod.finding(
                ("spec", "volumes", index, "hostPath"),
                "the pod would see the node's files.",
                "Use an emptyDir; the shim mounts what the environment needs.",
            )
    for path, container in pod.containers():
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
        if value_at(container, ("securityContext", "privileged")):
            yield pod.finding((*own, "privileged"), "the pod would own the node.", "Remove it.")


RESTRICTED: dict[tuple[str, ...], object] = {
    ("runAsNonRoot",): True,
    ("seccompProfile", "type"): "RuntimeDefault",
    ("allowPrivilegeEscalation",): False,
    ("readOnlyRootFilesystem",): True,
    ("capabilities", "drop"): ["ALL"],
}
INHERITED = {("runAsNonRoot",), ("seccompProfile", "type")}

ANNOTATION_RULES = (check_pin, check_misplaced_pin, check_annotations)
POD_RULES = (*ANNOTATION_RULES, check_runtime, check_security)
