"""Reads the command line, runs one command and returns its exit code."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import sys
from functools import partial
from typing import TYPE_CHECKING

from appliance import __version__
from appliance.cli import audit, chat, complete, key, quantize, serve, version
from appliance.cli.parsing import ArgumentParser, CommandGroup, HelpFormatter, examples
from appliance.console.terminal import Terminal, discard_unwritten, open_missing_streams
from appliance.errors import ApplianceError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Mapping, Sequence

# In the order of `appliance --help`.
OWN_COMMANDS = CommandGroup(
    "serve models and talk to them",
    {
        "serve": serve,
        "chat": chat,
        "complete": complete,
        "key": key,
        "audit": audit,
        "quantize": quantize,
        "version": version,
    },
    package="llama-server",
    examples=(
        ("appliance serve", "serve the embedded model, then open the printed address"),
        ("appliance serve --model ~/models/SmolLM2-135M", "serve a model of your own"),
        ("appliance chat", "talk to the server on this machine"),
        ("appliance complete 'Once upon a time'", "continue a text"),
    ),
)
# Where other packages list groups of commands, each as `name = module:list of CommandGroup`.
ENTRY_POINTS = "appliance.commands"

EXIT_FAILED = 1
EXIT_BROKEN_PIPE = 1
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells report it


def missing_library(command: str, error: ModuleNotFoundError, package: str) -> str:
    """Return what to install; raise the error again if the missing module is ours."""
    if error.name is None or error.name.startswith("appliance"):
        raise error
    return (
        f"appliance: `appliance {command}` needs the Python package {error.name}, which is not"
        f" installed here. Use the Nix package {package}, or a checkout after `make setup`.\n"
    )


class GroupedHelp(HelpFormatter):
    """Lists the commands under headings."""

    def __init__(self, headings: Mapping[str, str], *, prog: str) -> None:
        super().__init__(prog)
        self.headings = headings  # by the name of the command that follows

    def _format_action(self, action: argparse.Action) -> str:
        text = super()._format_action(action)
        if action.dest == "command":
            return text.partition("\n")[2]  # without the line that says COMMAND
        heading = self.headings.get(action.dest)
        return text if heading is None else f"\n  {heading}\n{text}"


def all_groups() -> list[CommandGroup]:
    """Return the commands of this package, and those that other installed packages add."""
    return [OWN_COMMANDS, *added_groups()]


def added_groups() -> Iterator[CommandGroup]:
    for entry_point in importlib.metadata.entry_points(group=ENTRY_POINTS):
        # A package made for pods names the release commands and leaves them out.
        if importlib.util.find_spec(entry_point.module.partition(".")[0]) is not None:
            yield from entry_point.load()


def build_parser(groups: Sequence[CommandGroup] | None = None) -> ArgumentParser:
    groups = all_groups() if groups is None else groups
    headings = {next(iter(group.commands)): group.heading for group in groups}
    parser = ArgumentParser(
        prog="appliance",
        description="Serve a language model over HTTP, and talk to one from the terminal.",
        epilog=examples(
            *(example for group in groups for example in group.examples),
            after="`appliance COMMAND --help` explains a command, its flags and their variables.",
        ),
        formatter_class=partial(GroupedHelp, headings),
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"Llama Appliance {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    for group in groups:
        for command in group.commands.values():
            command.add_parser(commands)
    return parser


def main(
    argv: Sequence[str] | None = None,
    environ: Mapping[str, str] | None = None,
    groups: Sequence[CommandGroup] | None = None,
) -> int:
    """Runs one command: of `groups`, else of this package and those installed beside it."""
    open_missing_streams()
    try:
        return run_command(argv, os.environ if environ is None else environ, groups)
    finally:
        discard_unwritten()


def run_command(
    argv: Sequence[str] | None, environ: Mapping[str, str], groups: Sequence[CommandGroup] | None
) -> int:
    argv = sys.argv[1:] if argv is None else argv
    if groups is None:
        # Looking for other packages takes longer than the rest: only if it may be needed.
        is_own = bool(argv) and argv[0] in OWN_COMMANDS.commands
        groups = [OWN_COMMANDS] if is_own else all_groups()
    parser = build_parser(groups)
    arguments = parser.parse_args(argv)
    if arguments.command is None:
        parser.print_help()
        return 0
    group = next(each for each in groups if arguments.command in each.commands)
    return run_in(group, arguments, environ)


def run_in(group: CommandGroup, arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Runs a command of the group; an error becomes a message and an exit code."""
    try:
        return group.commands[arguments.command].run(arguments, environ)
    except ApplianceError as error:
        Terminal(sys.stderr).write(f"appliance: {error.message}\n")
        return error.exit_code
    except ModuleNotFoundError as error:
        Terminal(sys.stderr).write(missing_library(arguments.command, error, group.package))
        return EXIT_FAILED
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        return EXIT_BROKEN_PIPE
    except OSError as error:  # a folder that cannot be written, a full disk
        where = "" if error.filename is None else f"{error.filename}: "
        Terminal(sys.stderr).write(f"appliance: {where}{error.strerror or error}\n")
        return EXIT_FAILED
