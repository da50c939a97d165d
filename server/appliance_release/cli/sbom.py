"""`appliance sbom`: writes a bill of materials."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.cli.parsing import add_command, examples
from appliance.console.terminal import Terminal

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from appliance.cli.parsing import Commands


def add_parser(commands: Commands) -> None:
    parser = add_command(
        commands,
        "sbom",
        summary="write a bill of materials",
        description="Write a bill of materials in CycloneDX 1.6 (JSON): Python packages with their"
        "\nlicences, models with revision, licence and the SHA-256 of each file, and for a"
        "\nNix store path everything it refers to, with hashes. The same parts give the"
        "\nsame bytes: nothing in it depends on time or machine without --timestamp.",
        examples=examples(
            ("appliance sbom .venv llama-build/models/pebble.lock.json", "of a checkout"),
            ("appliance sbom result result-1 --out sbom.json", "of what Nix built"),
        ),
    )
    parser.add_argument(
        "paths",
        type=Path,
        nargs="+",
        metavar="PATH",
        help="a Nix store path or a link to one, a Python environment, a model directory, a model"
        " lock",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: standard output")
    parser.add_argument("--timestamp", action="store_true", help="say when this was written")


def run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from appliance.models.hashing import FileHasher
    from appliance_release.locks.lock_file import write_whole
    from appliance_release.locks.nix_store import NixStore
    from appliance_release.sbom.document import describe

    terminal = Terminal(sys.stderr)
    now = datetime.now(UTC).isoformat(timespec="seconds") if arguments.timestamp else None
    with terminal.counting("looking at the parts"):
        text = describe(
            arguments.paths,
            store=NixStore.find(),
            hasher=FileHasher(progress=terminal.show_hashing),
            timestamp=now,
        )
    if arguments.out is None:
        print(text, end="")
    else:
        write_whole(arguments.out, text)
        print(f"wrote {arguments.out}")
    return 0
