"""`appliance lock`: writes the locks that pin what a build is made of."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.cli.parsing import add_command, examples
from appliance.console.terminal import Terminal
from appliance.errors import SettingsError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from appliance.cli.parsing import Commands

WHEEL_LOCK = Path("llama-build/wheels.lock.json")


def add_parser(commands: Commands) -> None:
    parser = add_command(
        commands,
        "lock",
        summary="write the locks that pin a build",
        description="Write a lock: the names, sizes and SHA-256 of every file that a build is made"
        "\nof. A build takes these files and no others.",
        examples=examples(
            ("appliance lock wheels", "pin the Python packages, at the top of a checkout"),
        ),
    )
    kinds = parser.add_subparsers(dest="kind", metavar="KIND", required=True)
    _add_wheels(kinds)


def _add_wheels(kinds: Commands) -> None:
    parser = add_command(
        kinds,
        "wheels",
        summary="pin the wheels of requirements/*.txt",
        description="For every package in requirements/cpu.txt, lean.txt and cuda.txt, choose the"
        "\nwheel that pip would take for Python 3.11 on Linux, and write down its name"
        "\nand hash. A wheel whose hash is not in those files is never chosen. Asks the"
        "\npackage registry for file names, through uv; downloads no package.",
        examples=examples(
            ("appliance lock wheels --uv .venv-lock/bin/uv", "as the last step of `make lock` does")
        ),
    )
    parser.add_argument(
        "--requirements",
        type=Path,
        default=Path("requirements"),
        metavar="DIR",
        help="where cpu.txt, lean.txt, cuda.txt and torch-cpu.txt lie [default requirements]",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=WHEEL_LOCK,
        metavar="FILE",
        help=f"the lock to write [default {WHEEL_LOCK}]",
    )
    parser.add_argument(
        "--uv", type=Path, metavar="PROGRAM", help="the uv program [default: on PATH]"
    )


def run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    return _lock_wheels(arguments)


def _lock_wheels(arguments: argparse.Namespace) -> int:
    from appliance.release.lock_file import render, write_whole
    from appliance.release.wheel_lock import lock_wheels

    uv = arguments.uv or shutil.which("uv")
    if uv is None:
        raise SettingsError(
            "uv is not on the PATH. `make lock` installs it into .venv-lock and runs this command;"
            " or name it with --uv."
        )
    with Terminal(sys.stderr).counting("asking which wheels there are"):
        lock = lock_wheels(arguments.requirements, Path(uv))
    write_whole(arguments.out, render(lock))
    for name, systems in lock["variants"].items():
        counts = ", ".join(f"{len(wheels)} on {system}" for system, wheels in systems.items())
        print(f"{name:5} {counts}")
    print(f"wrote {arguments.out}")
    return 0
