"""Checks the package files in `.flox/pkgs`: their names, and their shapes.

Flox takes every `*.nix` file there for a package, calls it with what nixpkgs has under the names of
its arguments, and builds what comes back. Only Nix knows whether that is a derivation; this finds
the shapes that never are: a function of a function, a set, and files that other files import.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from appliance_release.flox.types import Complaint

NIX_COMMENT = re.compile(r"#[^\n]*|/\*.*?\*/", re.DOTALL)
RELATIVE_PATH = re.compile(r"(?<![\w./-])(\.{1,2}/[\w./+-]*)")
REMEDY = "Move it out of .flox/pkgs, or into the directory of the package that uses it."


@dataclass(frozen=True, slots=True)
class PackageFile:
    name: str
    file: Path


def find_packages(folder: Path, prefix: str = "") -> Iterator[PackageFile]:
    """Finds packages as Flox does: NAME.nix, NAME/default.nix, other folders as sets of them."""
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.is_dir() and (path / "default.nix").is_file():
            yield PackageFile(prefix + path.name, path / "default.nix")
        elif path.is_dir():
            yield from find_packages(path, f"{prefix}{path.name}.")
        elif path.suffix == ".nix" and path.name != "flake.nix":
            yield PackageFile(prefix + path.stem, path)


def check_packages(folder: Path, builds: Mapping[str, object]) -> Iterator[tuple[Path, Complaint]]:
    """Returns each complaint with its file; `builds` is the manifest's [build]."""
    packages = list(find_packages(folder))
    imported = {path: by for each in packages for path, by in imports_of(each.file)}
    for each in packages:
        for complaint in complaints_about(each, packages, builds):
            yield each.file, complaint
        if each.file.resolve() in imported:
            by = imported[each.file.resolve()].relative_to(folder)
            message = f"{each.name} is imported by {by}, and Flox builds it as a package, too."
            yield each.file, Complaint((), f"{message} {REMEDY}")
        elif (shape := shape_of(read_text(each.file))) is not None:
            message = f"{each.name} is {shape}, not a package, and a bare `flox build` fails on it."
            yield each.file, Complaint((), f"{message} {REMEDY}")


def complaints_about(
    package: PackageFile, packages: list[PackageFile], builds: Mapping[str, object]
) -> Iterator[Complaint]:
    name, file = package.name, package.file
    if name in builds:
        yield Complaint(
            (), f"{name} is defined in [build] and in {file.name}, too. Rename or remove one."
        )
    twins = [each for each in packages if each.name == name and each.file != file]
    if twins and file.name != "default.nix":
        yield Complaint(
            (),
            f"{name} is defined twice, here and in {twins[0].file.parent.name}/default.nix, "
            "which wins silently. Remove one.",
        )
    if "." in file.stem:
        yield Complaint(
            (),
            f"{file.name}: Nix reads the dot as a step to another attribute, and the package must "
            "be quoted wherever it is used. Use '-' or '_'.",
            severity="warning",
        )


def imports_of(file: Path) -> Iterator[tuple[Path, Path]]:
    """Maps each .nix file that another one names by relative path to that other."""
    text = NIX_COMMENT.sub(" ", read_text(file))
    for match in RELATIVE_PATH.finditer(text):
        path = file.parent / match[1]
        path = path / "default.nix" if path.is_dir() else path
        if path.suffix == ".nix" and path.is_file() and path.resolve() != file.resolve():
            yield path.resolve(), file


def read_text(file: Path) -> str:
    """Reads a file whose comments may be in any encoding."""
    return file.read_text(encoding="utf-8", errors="replace")


def shape_of(text: str) -> str | None:
    """Names the shape of a file that is surely no package; None if it may be one."""
    text = NIX_COMMENT.sub(" ", text).lstrip()
    body = after_argument(text)
    if body is None:
        is_set = text.startswith(("rec {", "{"))
        return "a set" if is_set else None  # else an expression, such as `import ../x.nix`
    if after_argument(body) is not None:
        return "a function that returns a function"
    return "a function that returns a set" if body.startswith(("{", "rec {")) else None


def after_argument(text: str) -> str | None:
    """Returns the body of a function, None for other texts: `{ a, b ? {} } @ c:` or `name:`."""
    if text.startswith("{"):
        depth = 0
        for position, mark in enumerate(text):
            depth += {"{": 1, "}": -1}.get(mark, 0)
            if depth == 0:
                match = re.match(r"\s*(?:@\s*[\w'-]+\s*)?:(?=\s|$)", text[position + 1 :])
                return text[position + 1 + match.end() :].lstrip() if match else None
        return None
    match = re.match(r"[A-Za-z_][\w'-]*\s*(?:@\s*\{[^{}]*\}\s*)?:(?=\s|$)", text)
    return text[match.end() :].lstrip() if match else None
