"""`appliance lock`: writes the locks that pin what a build is made of."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.cli.parsing import add_command, examples
from appliance.console.progress import size_text
from appliance.console.terminal import Terminal
from appliance.errors import SettingsError
from appliance_release.cli.parts import add_part, add_parts, run_part

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from appliance.cli.parsing import Commands
    from appliance_release.locks.model_lock import ModelLock

WHEEL_LOCK = Path("llama-build/wheels.lock.json")
MODEL_LOCKS = Path("llama-build/models")


def add_parser(commands: Commands) -> None:
    parser = add_command(
        commands,
        "lock",
        summary="write the locks that pin a build",
        description="Write a lock: the names, sizes and SHA-256 of every file that a build is made"
        "\nof. A build takes these files and no others.",
        examples=examples(
            ("appliance lock model HuggingFaceTB/SmolLM2-135M-Instruct", "a model of the Hub"),
            ("appliance lock model ~/models/mine", "a model in a folder"),
            ("appliance lock wheels", "the Python packages, at the top of a checkout"),
        ),
    )
    parts = add_parts(parser)
    _add_model(parts)
    _add_wheels(parts)


def run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    return run_part(arguments, environ)


def _add_model(parts: Commands) -> None:
    parser = add_part(
        parts,
        "model",
        _lock_model,
        summary="pin the files of a model",
        description="Write the lock of a model: its exact revision, its licence, and the size and"
        "\nSHA-256 of each file. For a model of the Hub the hashes of large files come"
        "\nfrom the Hub's own list, so nothing large is downloaded. Only safetensors,"
        "\nJSON, tokenizer and licence files are pinned; pickles and code never."
        "\n\nHF_TOKEN, for gated models, is sent to the endpoint and to no other host.",
        examples=examples(
            ("appliance lock model HuggingFaceTB/SmolLM2-135M-Instruct", "what main is now"),
            ("HF_TOKEN=… appliance lock model meta-llama/Llama-2-7b-hf", "a gated model"),
            ("appliance lock model ~/models/mine --license mit", "a model in a folder"),
        ),
    )
    parser.add_argument("model", metavar="MODEL", help="ORG/NAME on the Hub, or a folder")
    parser.add_argument(
        "--revision", default="main", metavar="REV", help="branch, tag or commit [default main]"
    )
    parser.add_argument(
        "--endpoint",
        metavar="URL",
        help="the Hub, or a mirror of it [HF_ENDPOINT; default https://huggingface.co]",
    )
    parser.add_argument(
        "--repository", metavar="ORG/NAME", help="how to call a folder [default local/FOLDER]"
    )
    parser.add_argument(
        "--license", metavar="ID", help="licence, where the model card names none or a wrong one"
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help=f"default {MODEL_LOCKS}/NAME.lock.json"
    )
    parser.add_argument(
        "--allow-large-files",
        action="store_true",
        help="pin files of more than 5 GB, which `flox publish` cannot upload",
    )


def _add_wheels(parts: Commands) -> None:
    parser = add_part(
        parts,
        "wheels",
        _lock_wheels,
        summary="pin the wheels of requirements/*.txt",
        description="For every package in requirements/cpu.txt, lean.txt, cuda.txt and"
        "\nrelease.txt, choose the wheel that pip would take for Python 3.11 on Linux, and"
        "\nwrite down its name and hash. A wheel whose hash is not in those files is never"
        "\nchosen. Asks the package registry for file names, through uv; downloads no"
        "\npackage.",
        examples=examples(
            ("appliance lock wheels --uv .venv-lock/bin/uv", "as the last step of `make lock` does")
        ),
    )
    parser.add_argument(
        "--requirements",
        type=Path,
        default=Path("requirements"),
        metavar="DIR",
        help="where those files and torch-cpu.txt are [default requirements]",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=WHEEL_LOCK,
        metavar="FILE",
        help=f"the lock to write [default {WHEEL_LOCK}]",
    )
    parser.add_argument(
        "--uv", type=Path, metavar="PROGRAM", help="the uv program [default on PATH]"
    )


def _lock_model(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from appliance_release.locks.lock_file import write_whole
    from appliance_release.locks.model_lock import NO_LICENSE, check_sizes

    folder = Path(arguments.model).expanduser()
    if folder.is_dir():
        lock, path = _lock_folder(folder, arguments)
    else:
        lock, path = _lock_repository(arguments, environ)
    check_sizes(lock, is_large_allowed=arguments.allow_large_files)
    write_whole(path, lock.render())
    print(f"{lock.repository} at {lock.revision}, licence {lock.license}")
    for name, file in lock.files.items():
        print(f"  {file.sha256[:12]}  {size_text(file.size_bytes):>9}  {name}")
    print(f"wrote {path}: {len(lock.files)} files, {size_text(lock.total_bytes)}")
    if lock.license == NO_LICENSE:
        print("the model card names no licence; say it with --license", file=sys.stderr)
    return 0


def _lock_folder(folder: Path, arguments: argparse.Namespace) -> tuple[ModelLock, Path]:
    from appliance.models.hashing import FileHasher
    from appliance_release.locks.model_lock import (
        NO_LICENSE,
        check_repository,
        local_repository,
        lock_directory,
    )
    from appliance_release.sbom.model_card import read_license

    terminal = Terminal(sys.stderr)
    repository = check_repository(arguments.repository or local_repository(folder))
    path = arguments.out or lock_path(repository)
    license_id = arguments.license or read_license(folder) or NO_LICENSE
    with terminal.counting(f"reading {folder}"):
        hasher = FileHasher(progress=terminal.show_hashing)
        lock = lock_directory(folder, repository=repository, lock_path=path, hasher=hasher)
    return replace(lock, license=license_id), path


def _lock_repository(
    arguments: argparse.Namespace, environ: Mapping[str, str]
) -> tuple[ModelLock, Path]:
    from appliance_release.locks.hub import Hub
    from appliance_release.locks.hub_lock import lock_repository
    from appliance_release.locks.model_lock import check_repository

    check_repository(arguments.model)
    hub = Hub.of(arguments.endpoint, environ)
    with Terminal(sys.stderr).counting(f"asking {hub.endpoint} for {arguments.model}"):
        lock = lock_repository(hub, arguments.model, arguments.revision)
    if arguments.license:
        lock = replace(lock, license=arguments.license)
    return lock, arguments.out or lock_path(lock.repository)


def lock_path(repository: str) -> Path:
    return MODEL_LOCKS / f"{repository.partition('/')[2]}.lock.json"


def _lock_wheels(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from appliance_release.locks.lock_file import render, write_whole
    from appliance_release.locks.wheel_lock import lock_wheels

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
