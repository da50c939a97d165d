"""Holds Kubernetes objects as read, and findings about their fields."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from appliance_release.manifests.yaml_document import Document, Path

MAX_SHOWN_CHARS = 100
ABSENT = "absent"
SKIP = "flox.dev/skip-containers"  # the shim leaves these as they are

# Where each kind that runs pods keeps its pod template.
TEMPLATES: dict[object, Path] = {
    "Pod": (),
    "Deployment": ("spec", "template"),
    "StatefulSet": ("spec", "template"),
    "DaemonSet": ("spec", "template"),
    "ReplicaSet": ("spec", "template"),
    "Job": ("spec", "template"),
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A fault of one field. `line` is None in what kustomize rendered."""

    file: str
    line: int | None
    object: str
    field: str
    value: str
    problem: str
    remedy: str

    def __str__(self) -> str:
        where = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{where}: {self.object}: {self.field} is {self.value}: {self.problem} {self.remedy}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """`is_whole`: it is applied as written; otherwise an overlay adds to it."""

    source: str
    document: Document
    has_lines: bool = True
    is_whole: bool = True

    @property
    def kind(self) -> object:
        return self.at("kind")

    @property
    def name(self) -> object:
        return self.at("metadata", "name")

    @property
    def namespace(self) -> object:
        return self.at("metadata", "namespace")

    @property
    def title(self) -> str:
        return f"{self.kind}/{self.name}"

    def at(self, *path: str | int) -> object:
        return value_at(self.document.value, path)

    def mapping(self, *path: str | int) -> dict[str, object]:
        return mapping(self.at(*path))

    def sequence(self, *path: str | int) -> list[object]:
        return sequence(self.at(*path))

    def finding(self, path: Path, problem: str, remedy: str) -> Finding:
        return Finding(
            file=self.source,
            line=self.document.line_of(path) if self.has_lines else None,
            object=self.title,
            field=field_name(path),
            value=shown(self.at(*path)),
            problem=problem,
            remedy=remedy,
        )

    def pod(self) -> PodTemplate | None:
        path = TEMPLATES.get(self.kind) if isinstance(self.kind, str) else None
        return None if path is None else PodTemplate(self, path)


@dataclass(frozen=True, slots=True)
class PodTemplate:
    """The pods that an object runs; paths begin at the template."""

    manifest: Manifest
    path: Path

    @property
    def runs_flox(self) -> bool:
        images = {value_at(container, ("image",)) for _, container in self.every_container()}
        return (
            any(name.startswith("flox.dev/") for name in self.annotations)
            or self.at("spec", "runtimeClassName") == "flox"
            or any(str(image).startswith("flox/empty") for image in images)
        )

    @property
    def annotations(self) -> dict[str, object]:
        return mapping(self.at("metadata", "annotations"))

    @property
    def labels(self) -> dict[str, object]:
        return mapping(self.at("metadata", "labels"))

    def at(self, *path: str | int) -> object:
        return self.manifest.at(*self.path, *path)

    def containers(self) -> Iterator[tuple[Path, dict[str, object]]]:
        """Yields the containers that keep running in the environment, with their paths."""
        skipped = str(self.annotations.get(SKIP, "")).split(",")
        for index, container in enumerate(sequence(self.at("spec", "containers"))):
            if mapping(container).get("name") not in {name.strip() for name in skipped}:
                yield ("spec", "containers", index), mapping(container)

    def every_container(self) -> Iterator[tuple[Path, dict[str, object]]]:
        """Yields every container: initial, normal and for debugging."""
        for kind in ("initContainers", "containers", "ephemeralContainers"):
            for index, container in enumerate(sequence(self.at("spec", kind))):
                yield ("spec", kind, index), mapping(container)

    def ports(self) -> set[object]:
        """Returns the names and numbers of ports that a Service or a probe can reach."""
        found: set[object] = set()
        for container in sequence(self.at("spec", "containers")):
            for port in sequence(mapping(container).get("ports")):
                found |= {mapping(port).get("name"), mapping(port).get("containerPort")}
        return found - {None}

    def finding(self, path: Path, problem: str, remedy: str) -> Finding:
        return self.manifest.finding((*self.path, *path), problem, remedy)


def value_at(value: object, path: Path) -> object:
    """Returns the value at a path; None if there is none."""
    for step in path:
        is_key = isinstance(value, dict) and step in value
        is_index = isinstance(value, list) and isinstance(step, int) and step < len(value)
        if not (is_key or is_index):
            return None
        value = value[step]  # type: ignore[index]
    return value


def mapping(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}


def sequence(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def number(value: object) -> float | None:
    """Reads a number, or a text that is one."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except ValueError:
        return None


def amount(value: object) -> float | None:
    """Reads a number of pods, or a percentage of them."""
    return number(value.removesuffix("%") if isinstance(value, str) else value)


def quantity(value: object) -> float | None:
    """Reads an amount as Kubernetes writes it: 500m, 2, 1Gi."""
    units = {"m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
    binary = {"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40}
    text = str(value)
    for suffix, factor in (binary | units).items():
        if text.endswith(suffix):
            amount = number(text.removesuffix(suffix))
            return None if amount is None else amount * factor
    return number(text)


def field_name(path: Path) -> str:
    """Writes a path as `spec.containers[0].image`, names with dots in brackets."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        elif "." in step or "/" in step:
            text += f'["{step}"]'
        else:
            text += f".{step}" if text else step
    return text


def shown(value: object) -> str:
    if value is None:
        return ABSENT
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= MAX_SHOWN_CHARS else text[:MAX_SHOWN_CHARS] + "…"
