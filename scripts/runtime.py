"""Runs what a Flox manifest says, without Flox: variables, hook, then a service or a command.

It is there to test the manifest, and is not Flox. What differs:
- no catalog and no lock: packages are directories of this machine, linked into one environment;
- no process manager: a service is this very process, in the foreground, and gets its signals alone;
- no profile scripts, as in `flox activate -- COMMAND`, and nothing shared between activations.
"""

from __future__ import annotations

import argparse
import graphlib
import json
import os
import shlex
import shutil
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import appliance
from appliance.models.directory import embedded_model_path
from appliance_release.flox.check import check_environment
from appliance_release.flox.rules import refers_to

REPOSITORY = Path(__file__).resolve().parents[1]
MODEL_NAME = "pebble"

Manifest = dict[str, Any]


def main() -> NoReturn:
    arguments = parse_arguments()
    root = arguments.root.resolve()
    packages = arguments.packages or [pack_virtual_environment(root / "packages")]
    references = dict(each.split("=", maxsplit=1) for each in arguments.include)
    manifest = compose(arguments.directory, references)
    flox_env = root / "env"
    shutil.rmtree(flox_env, ignore_errors=True)
    link_packages(flox_env, packages)
    hook = root / "hook.sh"
    hook.write_text(manifest.get("hook", {}).get("on-activate", ""))
    script = activation(manifest, hook, arguments.service if not arguments.command else None)
    environ = {
        **os.environ,
        "FLOX_ENV": str(flox_env),
        "FLOX_ENV_CACHE": str(root / "cache"),
        "FLOX_ENV_PROJECT": str(arguments.directory.resolve()),
        "FLOX_ENV_DESCRIPTION": description(arguments.directory),
        "PATH": f"{flox_env / 'bin'}{os.pathsep}{os.environ['PATH']}",
    }
    (root / "cache").mkdir(exist_ok=True)
    bash = shutil.which("bash") or fail("there is no bash on the PATH")
    os.execve(bash, ["bash", "-c", script, "bash", *arguments.command], environ)  # noqa: S606


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Run the service of a Flox manifest, or a command in it, without Flox."
    )
    add = parser.add_argument
    add("directory", type=Path, nargs="?", default=REPOSITORY / "llama-runtime", metavar="DIR")
    add(
        "--package",
        type=Path,
        action="append",
        dest="packages",
        metavar="DIR",
        help="an installed package with bin/ or share/, such as llama-build/result-llama-server; "
        "default: this Python's `appliance` and the embedded model",
    )
    add(
        "--include",
        action="append",
        default=[],
        metavar="OWNER/NAME=DIR",
        help="where an environment lies that the manifest includes from FloxHub",
    )
    add("--service", default="llama", metavar="NAME")
    add("--root", type=Path, default=REPOSITORY / "build" / "runtime", metavar="DIR")
    own, command = split_at_dashes(sys.argv[1:])
    arguments = parser.parse_args(own)
    arguments.command = command
    return arguments


def split_at_dashes(words: list[str]) -> tuple[list[str], list[str]]:
    at = words.index("--") if "--" in words else len(words)
    return words[:at], words[at + 1 :]


def compose(directory: Path, references: Mapping[str, str]) -> Manifest:
    """The manifest with what it includes: later ones win, scripts are joined in order."""
    file = directory / ".flox" / "env" / "manifest.toml"
    if not file.is_file():
        fail(f"{directory} holds no Flox environment")
    findings = [each for each in check_environment(file) if each.severity == "error"]
    if findings:
        fail("\n".join(map(str, findings)))
    own: Manifest = tomllib.loads(file.read_text(encoding="utf-8"))
    result: Manifest = {}
    for each in own.get("include", {}).get("environments", []):
        reference = each.get("remote") or each.get("reference")
        if reference and reference not in references:
            fail(f"{file} includes {reference}; say where it lies: --include {reference}=DIR")
        place = Path(references[reference]) if reference else directory / each["dir"]
        result = merge(result, compose(place, references))
    return merge(result, own)


def merge(lower: Manifest, higher: Manifest, path: tuple[str, ...] = ()) -> Manifest:
    result = dict(lower)
    for name, value in higher.items():
        old = result.get(name)
        if path in {("hook",), ("profile",)} and old is not None:
            result[name] = f"{old}\n{value}"
        elif isinstance(old, dict) and isinstance(value, dict) and len(path) == 0:
            result[name] = merge(old, value, (*path, name))
        else:
            result[name] = value
    return result


def activation(manifest: Manifest, hook: Path, service: str | None) -> str:
    """The script that activates and ends in the service, or in the command of its arguments."""
    lines = exports(manifest.get("vars", {}))
    lines.append(f"source {shlex.quote(str(hook))} >&2")
    if service is None:
        return "\n".join([*lines, 'exec "$@"'])
    services = manifest.get("services", {})
    if not isinstance(services.get(service), dict):
        fail(f"the manifest has no service {service}")
    lines += exports(services[service].get("vars", {}))
    return "\n".join([*lines, f"exec bash -c {shlex.quote(services[service]['command'])}"])


def exports(values: Mapping[str, str]) -> list[str]:
    """As Flox writes them: in double quotes, so that references to variables are followed."""
    order = graphlib.TopologicalSorter(
        {
            name: [each for each in values if each != name and refers_to(values[name], each)]
            for name in sorted(values)
        }
    )
    quoted = {name: value.replace('"', '\\"') for name, value in values.items()}
    return [f'export {name}="{quoted[name]}"' for name in order.static_order()]


def pack_virtual_environment(folder: Path) -> Path:
    """A package like those of llama-build, of this Python's environment and the embedded model."""
    shutil.rmtree(folder, ignore_errors=True)
    for path, module in {"bin/appliance": "", "bin/llama-server": " serve"}.items():
        launcher = folder / path
        launcher.parent.mkdir(parents=True, exist_ok=True)
        source = shlex.quote(str(Path(appliance.__file__).parents[1]))
        python = shlex.quote(sys.executable)
        launcher.write_text(
            f'#!/bin/sh\nPYTHONPATH={source} exec {python} -m appliance{module} "$@"\n'
        )
        launcher.chmod(0o755)
    model = folder / "share" / "models" / MODEL_NAME
    model.mkdir(parents=True)
    for file in embedded_model_path().iterdir():
        (model / file.name).symlink_to(file)
    return folder


def link_packages(target: Path, packages: Sequence[Path]) -> None:
    """One tree of links: a directory of its own only where several packages meet."""
    names = sorted({path.name for package in packages for path in package.iterdir()})
    target.mkdir(parents=True)
    for name in names:
        found = [package / name for package in packages if (package / name).exists()]
        if len(found) == 1:
            (target / name).symlink_to(found[0].resolve())
        elif all(path.is_dir() for path in found):
            link_packages(target / name, found)
        else:
            fail(f"{' and '.join(map(str, found))} are one file of the environment")


def description(directory: Path) -> str:
    text = (directory / ".flox" / "env.json").read_text(encoding="utf-8")
    return str(json.loads(text)["name"])


def fail(message: str) -> NoReturn:
    sys.exit(f"runtime: {message}")


if __name__ == "__main__":
    main()
