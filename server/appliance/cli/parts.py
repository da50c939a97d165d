"""Adds the parsers of a command's parts and runs the chosen part."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from appliance.cli.parsing import HelpFormatter

if TYPE_CHECKING:
    import argparse

    from appliance.cli.parsing import ArgumentParser, Commands

    Act = Callable[[argparse.Namespace, Mapping[str, str]], int]


def add_parts(parser: ArgumentParser) -> Commands:
    """Add the list of parts; a command line must name one of them."""
    return parser.add_subparsers(dest="part", metavar="WHAT", title="commands", required=True)


def add_part(
    parts: Commands,
    name: str,
    act: Act,
    *,
    summary: str,
    description: str | None = None,
    examples: str | None = None,
) -> ArgumentParser:
    """Add a part that `act` runs."""
    parser = parts.add_parser(
        name,
        help=summary,
        description=description or f"{summary[0].upper()}{summary[1:]}.",
        epilog=examples,
        formatter_class=HelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(act=act)
    return parser


def run_part(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    act: Act = arguments.act
    return act(arguments, environ)
