"""`appliance chat`: holds a conversation in the terminal with any OpenAI-compatible server."""

from __future__ import annotations

import contextlib
import importlib
import sys
from typing import TYPE_CHECKING

from appliance.cli.client_flags import (
    MAX_TOKENS_FLAG,
    SAMPLING_FLAGS,
    SERVER_FLAGS,
    SYSTEM_FLAG,
    add_client_flags,
    client_values,
)
from appliance.cli.parsing import add_command, examples
from appliance.console.ink import Ink

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from appliance.cli.parsing import Commands

FLAGS = (
    *SERVER_FLAGS,
    SYSTEM_FLAG,
    *SAMPLING_FLAGS,
    MAX_TOKENS_FLAG,
)


def add_parser(commands: Commands) -> None:
    parser = add_command(
        commands,
        "chat",
        summary="talk to a model in the terminal",
        description="Hold a conversation with a model in the terminal.\n"
        "Ctrl-C stops an answer, Ctrl-D exits, /help lists the commands.",
        examples=examples(
            ("appliance chat", "talk to the server on this machine"),
            ("appliance chat --system 'Answer in one sentence.'", "set a system prompt"),
            ("appliance chat --url https://llm.example/v1 --model llama", "talk to another server"),
            (
                "appliance chat < questions.txt",
                "one question a line; answers go to standard output",
            ),
        ),
    )
    add_client_flags(parser, FLAGS)


def run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    values = client_values(FLAGS, arguments, environ)
    from appliance.cli.chat_session import ChatSession  # http.client is slow
    from appliance.cli.client import Client

    api_key = values.pop("api_key", None)
    client = Client(str(values.pop("url")), api_key=None if api_key is None else str(api_key))
    model = str(values.pop("model", "")) or client.first_model()
    system = values.pop("system", None)
    session = ChatSession(
        client,
        options={"model": model, **values},
        system=None if system is None else str(system),
        output=sys.stdout,
        ink=Ink.of(sys.stdout, environ),
    )
    if not sys.stdin.isatty():
        return session.run(lambda _: input())
    with contextlib.suppress(ImportError):  # absent from some builds; it gives input() a history
        importlib.import_module("readline")
    return session.run(input)
