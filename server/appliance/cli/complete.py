"""`appliance complete`: continues a text, streamed to standard output."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from appliance.cli.client_flags import (
    MAX_NEW_TOKENS_FLAG,
    SAMPLING_FLAGS,
    SERVER_FLAGS,
    add_client_flags,
    client_values,
)
from appliance.cli.parsing import add_command, examples
from appliance.console.ink import printable

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from appliance.cli.parsing import Commands

FLAGS = (
    *SERVER_FLAGS,
    MAX_NEW_TOKENS_FLAG,
    *SAMPLING_FLAGS,
)


def add_parser(commands: Commands) -> None:
    parser = add_command(
        commands,
        "complete",
        summary="continue a text",
        description="Continue a text. Only the continuation goes to standard output, as it streams;"
        "\nmessages go to standard error.",
        examples=examples(
            ("appliance complete 'Once upon a time'", "continue a story"),
            (
                "appliance complete 'Once upon a time' --temperature 0",
                "take the likeliest tokens",
            ),
            ("cat story.txt | appliance complete - >> story.txt", "continue a file in place"),
        ),
    )
    parser.add_argument("prompt", metavar="PROMPT", help="text to continue; - reads standard input")
    add_client_flags(parser, FLAGS)


def run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    values = client_values(FLAGS, arguments, environ)
    from appliance.cli.client import Client  # http.client is slow

    api_key = values.pop("api_key", None)
    client = Client(str(values.pop("url")), api_key=None if api_key is None else str(api_key))
    body = {
        "prompt": sys.stdin.read() if arguments.prompt == "-" else arguments.prompt,
        "max_tokens": values.pop("max_new_tokens"),
        "model": values.pop("model", None) or client.first_model(),
        **values,
    }
    is_terminal = sys.stdout.isatty()
    for piece in client.stream("/completions", body):
        sys.stdout.write(printable(piece.text) if is_terminal else piece.text)
        sys.stdout.flush()
    if is_terminal:
        sys.stdout.write("\n")
    return 0
