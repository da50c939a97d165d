"""The command line: reads the arguments, runs one command, returns its exit code."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Protocol

from appliance import __version__
from appliance.cli import (
    bundle,
    chat,
    complete,
    flox,
    lock,
    pin,
    prefetch,
    quantize,
    rollout,
    sbom,
    serve,
    version,
)
from appliance.cli.parsing import ArgumentParser, HelpFormatter, examples
from appliance.console.terminal import Terminal, discard_unwritten, open_missing_streams
from appliance.errors import ApplianceError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

    from appliance.cli.parsing import Commands


class Command(Protocol):
    """A module of this package; it imports what is slow only when it runs."""

    def add_parser(self, commands: Commands) -> None: ...

    def run(self, arguments: argparse.Namespace, environ: Mapping[str, str]) -> int: ...


# In the order of `appliance --help`.
COMMANDS: dict[str, Command] = {
    "serve": serve,
    "chat": chat,
    "complete": complete,
    "quantize": quantize,
    "version": version,
    "lock": lock,
    "prefetch": prefetch,
    "sbom": sbom,
    "bundle": bundle,
    "flox": flox,
    "pin": pin,
    "rollout": rollout,
}
# What stands there above a command and those that follow it.
HEADINGS = {
    "serve": "serve models and talk to them",
    "lock": "build and carry a release",
    "flox": "run a release on a cluster",
}

EXIT_FAILED = 1
EXIT_BROKEN_PIPE = 1
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells report it


class GroupedHelp(HelpFormatter):
    """Lists the commands under headings."""

    def _format_action(self, action: argparse.Action) -> str:
        text = super()._format_action(action)
        if action.dest == "command":
            return text.partition("\n")[2]  # without the line that says COMMAND
        heading = HEADINGS.get(action.dest)
        return text if heading is None else f"\n  {heading}\n{text}"


def build_parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="appliance",
        description="Serve a language model over HTTP, and talk to one from the terminal."
        "\nLock, build, carry, pin and check releases of it.",
        epilog=examples(
            ("appliance serve", "serve the model that ships inside, then open the printed address"),
            ("appliance serve --model ~/models/SmolLM2-135M", "serve a model of your own"),
            ("appliance chat", "talk to the server on this machine"),
            ("appliance complete 'Once upon a time'", "continue a text"),
            ("appliance pin set staging 2", "roll a cluster forward"),
            after="`appliance COMMAND --help` explains a command, its flags and their variables.",
        ),
        formatter_class=GroupedHelp,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"Llama Appliance {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    for command in COMMANDS.values():
        command.add_parser(commands)
    return parser


def main(argv: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> int:
    open_missing_streams()
    try:
        return run_command(argv, os.environ if environ is None else environ)
    finally:
        discard_unwritten()


def run_command(argv: Sequence[str] | None, environ: Mapping[str, str]) -> int:
    parser = build_parser()
    arguments = parser.parse_args(argv)
    if arguments.command is None:
        parser.print_help()
        return 0
    try:
        return COMMANDS[arguments.command].run(arguments, environ)
    except ApplianceError as error:
        Terminal(sys.stderr).write(f"appliance: {error.message}\n")
        return error.exit_code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        return EXIT_BROKEN_PIPE
    except OSError as error:  # a folder that cannot be written, a full disk
        where = "" if error.filename is None else f"{error.filename}: "
        Terminal(sys.stderr).write(f"appliance: {where}{error.strerror or error}\n")
        return EXIT_FAILED
