"""What the parts of `appliance pin` share: their flags, and whoever works at the manifests."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.cli.parsing import HelpFormatter

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from appliance.cli.parsing import Commands
    from appliance_release.pins.pin_change import PinDesk

EXIT_FOUND = 1  # lint or --verify found something


def add_part(
    parts: Commands, name: str, summary: str, act: Callable[[argparse.Namespace], int]
) -> argparse.ArgumentParser:
    parser = parts.add_parser(
        name, help=summary, description=summary, formatter_class=HelpFormatter, allow_abbrev=False
    )
    parser.set_defaults(act=act, why=None)
    parser.add_argument(
        "--directory",
        type=Path,
        default=Path("k8s"),
        metavar="DIR",
        help="where overlays/ and pins/ are [default k8s]",
    )
    return parser


def add_why(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--why", metavar="TEXT", help="for the history")


def open_desk(arguments: argparse.Namespace) -> PinDesk:
    from appliance_release.pins.pin_change import PinDesk
    from appliance_release.rollout.programs import git_author, run_program

    by = git_author(run_program) or getpass.getuser()
    return PinDesk(directory=arguments.directory, by=by, why=arguments.why)
