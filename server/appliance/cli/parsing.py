"""Formats the help of every command, and ends a wrong command line."""

from __future__ import annotations

import argparse
import shutil
import textwrap
from typing import TYPE_CHECKING, NamedTuple, NoReturn, Protocol

if TYPE_CHECKING:
    from argparse import _SubParsersAction
    from collections.abc import Mapping

    Commands = _SubParsersAction["ArgumentParser"]


class Command(Protocol):
    """A module with one command; it imports slow modules only when it runs."""

    def add_parser(self, commands: Commands) -> None: ...

    def run(self, arguments: argparse.Namespace, environ: Mapping[str, str]) -> int: ...


class CommandGroup(NamedTuple):
    """Commands by name, in the order of `appliance --help`, under a heading.

    `package` is the Nix package that brings every library these commands import.
    """

    heading: str
    commands: Mapping[str, Command]
    package: str
    examples: tuple[tuple[str, str], ...] = ()


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Keeps the line breaks of examples and of the variable below each flag."""

    def __init__(self, prog: str) -> None:
        width = min(shutil.get_terminal_size().columns, 100) - 2
        super().__init__(prog, max_help_position=26, width=width)

    def _split_lines(self, text: str, width: int) -> list[str]:
        return [line for part in text.splitlines() for line in textwrap.wrap(part, width)]


class ArgumentParser(argparse.ArgumentParser):
    """Ends a wrong command line with a line that names the help."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"appliance: {message}\nTry `{self.prog} --help`.\n")


def add_command(
    commands: Commands, name: str, *, summary: str, description: str, examples: str
) -> ArgumentParser:
    return commands.add_parser(
        name,
        help=summary,
        description=description,
        epilog=examples,
        formatter_class=HelpFormatter,
        allow_abbrev=False,
    )


def examples(*pairs: tuple[str, str], after: str = "") -> str:
    """Return the end of a help text: command lines, each below its purpose."""
    lines = [line for command, purpose in pairs for line in (f"  # {purpose}", f"  {command}")]
    return "\n".join(["examples:", *lines, *(["", after] if after else [])])
