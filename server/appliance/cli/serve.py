"""`appliance serve`: flags and environment to Settings, then the server."""

from __future__ import annotations

import gc
import sys
from dataclasses import Field, fields
from typing import TYPE_CHECKING

from appliance.cli.client_flags import CLIENT_PREFIX
from appliance.cli.parsing import add_command, examples
from appliance.console.ink import Ink
from appliance.settings import (
    FAMILIAR_NAMES,
    Settings,
    load_settings,
    parse_setting,
    variable_name,
)

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping
    from typing import Any

    from appliance.cli.parsing import Commands

# How the help groups the settings; what is listed nowhere stands in the last group.
GROUPS = {
    "model": ("model_path", "model_name", "generation"),
    "network": ("host", "port", "allowed_hosts", "max_body_bytes", "ping_interval_s"),
    "computing": ("engine", "device", "dtype", "quantization", "threads"),
    "load": (
        "max_context_tokens",
        "kv_cache_tokens",
        "max_batch_tokens",
        "max_sequences",
        "max_queued",
        "queue_timeout_s",
    ),
    "process": (),
}
METAVARS = {"int": "N", "float": "S", "Path": "DIR", "tuple[str, ...]": "NAMES"}


def add_parser(commands: Commands) -> None:
    parser = add_command(
        commands,
        "serve",
        summary="serve a model over HTTP",
        description="Serve a model over HTTP: a chat page, POST /generate, and an OpenAI-compatible"
        "\nAPI under /v1. Stops on Ctrl-C or SIGTERM, after running answers have finished.",
        examples=examples(
            ("appliance serve", "the embedded model, on this machine only"),
            ("appliance serve --model ~/models/SmolLM2-135M --port 8080", "a model of your own"),
            ("appliance serve --host 0.0.0.0 --allowed-hosts llama.example", "for other machines"),
            ("APPLIANCE_MAX_QUEUED=16 appliance serve", "a setting by its variable"),
            after="A flag wins over its variable.\n"
            "Exit code 2: a setting is wrong; 3: the model is refused.",
        ),
    )
    parser.usage = "appliance serve [--model DIR] [--host NAME] [--port N] [flags below]"
    groups = {title: parser.add_argument_group(title) for title in GROUPS}
    for field in fields(Settings):
        add_setting(groups[group_of(field.name)], field)


def run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    settings = load_settings(server_variables(environ), **given(arguments))
    gc.disable()  # the imports make objects that stay: looking through them takes a tenth longer
    from appliance.serve.wiring import serve  # takes half a second: FastAPI, numpy

    gc.enable()
    return serve(settings, Ink.of(sys.stderr, environ))


def add_setting(group: argparse._ArgumentGroup, field: Field[Any]) -> None:
    """The flag of one setting; its text is parsed later, by the rules of settings.py."""
    group.add_argument(
        *flags_of(field.name),
        dest=field.name,
        metavar="|".join(field.metadata["choices"]) or METAVARS.get(base_type(field), "NAME"),
        help=f"{field.metadata['help']}\n[{', '.join(variables_of(field.name))}{default(field)}]",
    )


def given(arguments: argparse.Namespace) -> dict[str, object]:
    """The settings that the command line names, parsed."""
    texts = {field.name: getattr(arguments, field.name) for field in fields(Settings)}
    return {
        name: parse_setting(flags_of(name)[0], name, text)
        for name, text in texts.items()
        if text is not None
    }


def server_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment without the variables of `appliance chat` and `appliance complete`."""
    return {name: value for name, value in environ.items() if not name.startswith(CLIENT_PREFIX)}


def group_of(name: str) -> str:
    return next((title for title, names in GROUPS.items() if name in names), "process")


def flags_of(name: str) -> list[str]:
    flag = "--" + name.replace("_", "-")
    return ["--model", flag] if name == "model_path" else [flag]


def variables_of(name: str) -> list[str]:
    familiar = [variable for variable, field_name in FAMILIAR_NAMES.items() if field_name == name]
    return [variable_name(name), *familiar]


def default(field: Field[Any]) -> str:
    """As the help shows it; None and () are explained by the setting's own words."""
    if field.default in (None, ()):
        return ""
    number = isinstance(field.default, float)
    return f"; default {field.default:g}" if number else f"; default {field.default}"


def base_type(field: Field[Any]) -> str:
    return str(field.type).removesuffix(" | None")
