"""Chooses the wheel that pip would take for each locked requirement, for Nix to fetch by hash."""

from __future__ import annotations

import subprocess
import tempfile
import tomllib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict
from urllib.parse import unquote

from packaging.tags import compatible_tags, cpython_tags
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from appliance.errors import ReleaseError
from appliance_release.locks.lock_file import LOCK_VERSION
from appliance_release.locks.requirements_file import (
    Requirement,
    read_requirements,
    read_wheel_names,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from packaging.tags import Tag

PYTHON = (3, 11)
MACHINES = {"x86_64-linux": "x86_64", "aarch64-linux": "aarch64"}
# The oldest C library a server runs on, Debian 12's; Nix brings a newer one.
NEWEST_GLIBC = 36
LEGACY_PLATFORMS = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}
OLDEST_GLIBC = {"x86_64": 5, "aarch64": 17}

VARIANTS = {
    "cpu": "cpu.txt",
    "lean": "lean.txt",
    "cuda": "cuda.txt",
    "release": "release.txt",
}
TORCH_FILES = "torch-cpu.txt"
TORCH_CPU_INDEX = "torch-cpu"


class WheelLock(TypedDict):
    lock: int
    python: str
    variants: dict[str, dict[str, list[dict[str, str | None]]]]


Published = dict[str, dict[str, str]]  # canonical project name to file name to sha256


@dataclass(frozen=True, slots=True, kw_only=True)
class Wheel:
    """The parts of a wheel's name, as nixpkgs' fetchPypi takes them."""

    pname: str
    version: str
    python: str
    abi: str
    platform: str
    file: str
    sha256: str
    index: str | None  # None: the registry


def lock_wheels(requirements: Path, uv: Path) -> WheelLock:
    """Makes the wheel lock of the locks in `requirements`; `uv` lists the published files."""
    locks = {name: read_requirements(requirements / file) for name, file in VARIANTS.items()}
    published = _published_files(uv, [each for lock in locks.values() for each in lock])
    published.setdefault("torch", {}).update(read_wheel_names(requirements / TORCH_FILES))
    variants = {
        name: {
            system: [asdict(wheel) for wheel in _choose_all(lock, machine, published)]
            for system, machine in MACHINES.items()
        }
        for name, lock in locks.items()
    }
    return {"lock": LOCK_VERSION, "python": ".".join(map(str, PYTHON)), "variants": variants}


def _choose_all(lock: Sequence[Requirement], machine: str, published: Published) -> Iterator[Wheel]:
    tags = {tag: rank for rank, tag in enumerate(_tags(machine))}
    for requirement in lock:
        if requirement.holds_on(machine, PYTHON):
            yield _choose(requirement, published.get(requirement.name, {}), tags)


def _choose(
    requirement: Requirement, published: Mapping[str, str], tags: Mapping[Tag, int]
) -> Wheel:
    """Chooses the wheel with the best tag among those whose hash is in the lock."""
    ranked = [
        (min(tags[tag] for tag in fitting), file)
        for file, sha256 in published.items()
        if sha256 in requirement.hashes and (fitting := _wheel_tags(file) & tags.keys())
    ]
    if not ranked:
        raise ReleaseError(
            f"{requirement.name} {requirement.version} has no wheel that is in the lock and runs on"
            f" {next(iter(tags)).platform}. Lock another version, or take the package out."
        )
    file = min(ranked)[1]
    parts = file.removesuffix(".whl").split("-")
    if len(parts) != 5:
        raise ReleaseError(f"{file} has a build number, by which nixpkgs cannot fetch a wheel.")
    pname, version, python, abi, platform = parts
    return Wheel(
        pname=pname,
        version=version,
        python=python,
        abi=abi,
        platform=platform,
        file=file,
        sha256=published[file],
        index=TORCH_CPU_INDEX if version.endswith("+cpu") else None,
    )


def _wheel_tags(file: str) -> frozenset[Tag]:
    try:
        return parse_wheel_filename(file)[3]
    except InvalidWheelFilename:
        return frozenset()


def _tags(machine: str) -> Iterator[Tag]:
    """Yields tags, best first, as pip orders them."""
    platforms = list(_platforms(machine))
    yield from cpython_tags(PYTHON, platforms=platforms)
    yield from compatible_tags(PYTHON, f"cp{PYTHON[0]}{PYTHON[1]}", platforms)


def _platforms(machine: str) -> Iterator[str]:
    for minor in range(NEWEST_GLIBC, OLDEST_GLIBC[machine] - 1, -1):
        yield f"manylinux_2_{minor}_{machine}"
        if minor in LEGACY_PLATFORMS:
            yield f"{LEGACY_PLATFORMS[minor]}_{machine}"
    yield f"linux_{machine}"


def _published_files(uv: Path, requirements: Sequence[Requirement]) -> Published:
    """Lists the registry's files of each; local versions are in another index."""
    names = {
        each.pin
        for each in requirements
        if "+" not in each.version
        if any(each.holds_on(machine, PYTHON) for machine in MACHINES.values())
    }
    with tempfile.TemporaryDirectory() as folder:
        wanted, answer = Path(folder, "wanted.txt"), Path(folder, "pylock.toml")
        wanted.write_text("\n".join(sorted(names)), encoding="utf-8")
        _run_uv(uv, wanted, answer)
        packages = tomllib.loads(answer.read_text(encoding="utf-8"))["packages"]
    return {
        canonicalize_name(package["name"]): {
            unquote(wheel["url"].rsplit("/", maxsplit=1)[1]): wheel["hashes"]["sha256"]
            for wheel in package.get("wheels", ())
        }
        for package in packages
    }


def _run_uv(uv: Path, wanted: Path, answer: Path) -> None:
    command = [str(uv), "--quiet", "--no-config", "pip", "compile", "--no-deps", "--universal"]
    command += ["--python-version", ".".join(map(str, PYTHON)), "--format", "pylock.toml"]
    command += ["--output-file", str(answer), str(wanted)]
    try:
        run = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    except OSError as error:
        raise ReleaseError(
            f"{uv} cannot be run ({error.strerror}). `make lock` installs uv and runs this command."
        ) from None
    if run.returncode != 0:
        raise ReleaseError(f"uv could not list the packages' files: {run.stderr.strip()}")
