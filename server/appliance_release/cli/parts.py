"""What the parts of release commands have in common, beside what those of all commands have."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from appliance.cli.parts import add_part, add_parts, run_part

if TYPE_CHECKING:
    from appliance.cli.parsing import ArgumentParser

__all__ = ["add_directory", "add_part", "add_parts", "run_part"]


def add_directory(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--directory",
        type=Path,
        default=Path("k8s"),
        metavar="DIR",
        help="where overlays/ and pins/ are [default k8s]",
    )
