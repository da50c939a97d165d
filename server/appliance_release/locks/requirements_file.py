"""Reads a requirements file whose every line is pinned to one version and to hashes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from packaging.markers import Marker
from packaging.utils import canonicalize_name

from appliance.errors import ReleaseError

if TYPE_CHECKING:
    from pathlib import Path

_PIN = re.compile(r"([\w.-]+)==([\w.+!]+)(?: *; *([^\\]*?))? *((?:--hash=sha256:[0-9a-f]{64} *)+)")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
_WHEEL_NAME = re.compile(r"# +([0-9a-f]{64})  (\S+\.whl)")


@dataclass(frozen=True, slots=True)
class Requirement:
    """One version of one package, its files, and the platforms that want it."""

    name: str
    version: str
    marker: str | None
    hashes: frozenset[str]

    @property
    def pin(self) -> str:
        return f"{self.name}=={self.version}"

    def holds_on(self, machine: str, python: tuple[int, int]) -> bool:
        """Checks whether CPython on Linux wants it, on a machine such as x86_64."""
        version = ".".join(map(str, python))
        environment = {
            "implementation_name": "cpython",
            "os_name": "posix",
            "platform_machine": machine,
            "platform_python_implementation": "CPython",
            "platform_system": "Linux",
            "python_full_version": f"{version}.0",
            "python_version": version,
            "sys_platform": "linux",
        }
        return self.marker is None or Marker(self.marker).evaluate(environment)


def read_requirements(path: Path) -> list[Requirement]:
    """Reads requirements in order; refuses one without version or hash by name."""
    text = re.sub(r"^ *#.*\n?", "", _read(path), flags=re.MULTILINE).replace("\\\n", " ")
    return [_parse(line.strip(), path.name) for line in text.splitlines() if line.strip()]


def read_wheel_names(path: Path) -> dict[str, str]:
    """Maps file names to SHA-256, from comment lines in the format of sha256sum."""
    return {match[2]: match[1] for match in _WHEEL_NAME.finditer(_read(path))}


def _parse(line: str, file: str) -> Requirement:
    match = _PIN.fullmatch(line)
    if match is None:
        raise ReleaseError(
            f"{file}: {line[:80]!r} is not pinned by == to a version and by --hash=sha256: to"
            " files. Write the file with `make lock`."
        )
    name, version, marker, hashes = match.groups()
    return Requirement(canonicalize_name(name), version, marker, frozenset(_HASH.findall(hashes)))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ReleaseError(
            f"{path} cannot be read: {error.strerror}. `appliance lock wheels` runs at the top of a"
            " checkout of the appliance."
        ) from None
