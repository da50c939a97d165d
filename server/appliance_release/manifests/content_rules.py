"""Checks that nothing beside the generation decides what a pod's server is, loads, and keeps."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from appliance.errors import SettingsError
from appliance.models.options import KNOWN
from appliance.settings import parse_setting
from appliance_release.manifests.kubernetes_manifest import (
    mapping,
    quantity,
    sequence,
    value_at,
)
from appliance_release.manifests.server_options import WrongArguments, flags, option, path_of
from appliance_release.pins.reference import ANNOTATION

if TYPE_CHECKING:
    from collections.abc import Iterator

    from appliance_release.manifests.kubernetes_manifest import Finding, PodTemplate
    from appliance_release.manifests.yaml_document import Path

SHELLS = {"sh", "bash", "dash", "ash", "zsh", "env", "busybox"}
# They put code of others into every program, whatever the generation holds.
LOADERS = re.compile(
    r"LD_PRELOAD|LD_AUDIT|LD_LIBRARY_PATH|PYTHON(PATH|HOME|STARTUP)|PATH|BASH_ENV|FLOX_ENV"
)
KEPT = ("/nix", "/flox", "/run/flox")  # where the environment comes from
# Less cannot be meant. No measurements: no GPU pod has run yet, and other models need far more.
MIN_GPU_BYTES = 4 * 2**30  # torch, a CUDA context and its libraries on the host's side
MIN_BYTES = 256 * 2**20  # Python, the kernels and the embedded model
FIELD_PATH = f"metadata.annotations['{ANNOTATION}']"
REMEDY = "Publish it in the environment, and pin the generation that has it."


def check_commands(pod: PodTemplate) -> Iterator[Finding]:
    for path, container in pod.containers():
        program = PurePosixPath(str((sequence(container.get("command")) or [""])[0]))
        if program.name in SHELLS:
            yield pod.finding(
                (*path, "command"),
                "a shell stands between the server and its signals, and runs what no check reads.",
                "Name the launcher: [llama-server].",
            )
        elif len(program.parts) > 1:
            yield pod.finding(
                (*path, "command"),
                "a path need not lead into the environment.",
                "Name the launcher: [llama-server].",
            )
        else:
            yield from _check_flags(pod, path, container)


def _check_flags(pod: PodTemplate, path: Path, container: dict[str, object]) -> Iterator[Finding]:
    try:
        given = flags(container)
    except WrongArguments as error:
        yield pod.finding(
            (*path, "args"),
            f"the server would not start: {error}.",
            "`appliance serve --help` lists the flags.",
        )
        return
    for name, flag in given.items():
        if name == "model_path" or "$(" in str(flag.value):
            continue
        try:
            parse_setting(name, KNOWN[name], str(flag.value))
        except SettingsError as error:
            yield pod.finding(
                (*path, *flag.path), f"the server would not start: {error.message}", "Correct it."
            )


def check_content(pod: PodTemplate) -> Iterator[Finding]:
    """Checks what could replace the programs and the model of the generation."""
    for path, container in pod.every_container():
        for index, variable in enumerate(sequence(container.get("env"))):
            if LOADERS.fullmatch(str(mapping(variable).get("name"))):
                yield pod.finding(
                    (*path, "env", index, "name"),
                    "it loads code that is no part of the generation.",
                    REMEDY,
                )
        if container.get("envFrom"):
            yield pod.finding(
                (*path, "envFrom"),
                "it sets variables that no check here can read.",
                "Write each variable, with valueFrom if its value is elsewhere.",
            )
        for index, mount in enumerate(sequence(container.get("volumeMounts"))):
            place = PurePosixPath(str(mapping(mount).get("mountPath")))
            if any(place.is_relative_to(kept) or str(place) == "/" for kept in KEPT):
                yield pod.finding(
                    (*path, "volumeMounts", index, "mountPath"),
                    "it hides what the generation brings.",
                    "Mount it elsewhere.",
                )
    for path, container in pod.containers():
        yield from _check_model(pod, path, container)


def _check_model(pod: PodTemplate, path: Path, container: dict[str, object]) -> Iterator[Finding]:
    for field in ("model_path", "models"):
        found = option(container, field)
        if found is None or _is_of_generation(str(found.value)):
            continue
        yield pod.finding(
            (*path, *found.path),
            "the model would not be the generation's, and no pin says which one it is.",
            REMEDY,
        )
    generation = option(container, "generation")
    source = None if generation is None else value_at(generation.value, ("fieldRef", "fieldPath"))
    if source != FIELD_PATH:
        yield pod.finding(
            path_of(path, container, "generation"),
            "the server would not say which generation it is.",
            f"Take it from the pin: valueFrom.fieldRef of {FIELD_PATH}.",
        )


def _is_of_generation(spec: str) -> bool:
    """Tells whether a model is embedded, or in the environment or the store."""
    directory = spec.partition(",")[0].rpartition("=")[2]
    place = PurePosixPath(directory)
    return ".." not in place.parts and (
        directory == "embedded" or str(place).startswith(("/nix/store/", "$(FLOX_ENV)/"))
    )


def check_volumes(pod: PodTemplate) -> Iterator[Finding]:
    in_memory = 0.0
    for index, volume in enumerate(sequence(pod.at("spec", "volumes"))):
        path: Path = ("spec", "volumes", index, "emptyDir")
        if "emptyDir" not in mapping(volume):
            continue
        size = quantity(pod.at(*path, "sizeLimit"))
        if size is None:
            yield pod.finding(
                (*path, "sizeLimit"),
                "it can fill the node, whose other pods are then evicted.",
                "Write the most it may hold, such as 256Mi.",
            )
        if pod.at(*path, "medium") == "Memory":
            in_memory += size or 0
    for path, container in pod.containers():
        yield from _check_memory(pod, path, container, in_memory)
        places = {
            mapping(mount).get("mountPath") for mount in sequence(container.get("volumeMounts"))
        }
        read_only = value_at(container, ("securityContext", "readOnlyRootFilesystem"))
        if read_only is True and "/tmp" not in places:  # noqa: S108  the pod's own
            yield pod.finding(
                (*path, "volumeMounts"),
                "the root is read-only, and there is no /tmp to write to.",
                "Mount an emptyDir at /tmp.",
            )


def _check_memory(
    pod: PodTemplate, path: Path, container: dict[str, object], in_memory: float
) -> Iterator[Finding]:
    limits = mapping(value_at(container, ("resources", "limits")))
    limit = quantity(limits.get("memory"))
    has_gpu = any(str(name).endswith("/gpu") for name in limits)
    needed = in_memory + (MIN_GPU_BYTES if has_gpu else MIN_BYTES)
    if limit is not None and limit < needed:
        taker = "torch and CUDA" if has_gpu else "Python and the model"
        yield pod.finding(
            (*path, "resources", "limits", "memory"),
            f"{taker} need more, and volumes in memory count, too: the server is killed.",
            f"Write {needed / 2**20:.0f}Mi or more.",
        )


def check_sharing(pod: PodTemplate) -> Iterator[Finding]:
    if pod.at("spec", "shareProcessNamespace"):
        yield pod.finding(
            ("spec", "shareProcessNamespace"),
            "the server is no longer process 1, and other containers see its memory.",
            "Remove it.",
        )
    for path in (("spec",), *(path for path, _ in pod.every_container())):
        group: Path = (*path, "securityContext", "runAsGroup")
        if pod.at(*group) == 0:
            yield pod.finding(group, "that is root's group.", "Write 65532, or another group.")
    taken: set[object] = set()
    for path, container in pod.every_container():
        for index, port in enumerate(sequence(container.get("ports"))):
            number = mapping(port).get("containerPort")
            if number in taken:
                yield pod.finding(
                    (*path, "ports", index, "containerPort"),
                    "another container of the pod has it.",
                    "Give each its own port.",
                )
            taken.add(number)


CONTENT_RULES = (check_commands, check_content, check_volumes, check_sharing)
