"""`appliance serve`: reads flags and variables, then runs the server."""

from __future__ import annotations

import gc
import sys
from dataclasses import Field
from typing import TYPE_CHECKING

from appliance.cli.client_flags import CLIENT_PREFIX
from appliance.cli.parsing import add_command, examples
from appliance.console.ink import Ink
from appliance.models.options import ALIASES, KNOWN, flag_name, load_configuration, variables_of
from appliance.settings import FAMILIAR_NAMES, parse_setting

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping
    from typing import Any

    from appliance.cli.parsing import Commands

# How the help groups the settings; the last group has those that no other lists.
GROUPS = {
    "models": (
        "model_path",
        "model_name",
        "models",
        "load",
        "idle_unload_s",
        "required",
        "generation",
    ),
    "network": (
        "host",
        "port",
        "allowed_hosts",
        "tls_certificate",
        "tls_key",
        "cors_origins",
        "metrics_port",
        "max_body_bytes",
        "ping_interval_s",
    ),
    "access": ("keys", "jwt", "token_review", "audit_log"),
    "computing, for all models": ("runner", "device", "dtype", "quantization", "threads"),
    "load, of each model": (
        "max_context_tokens",
        "kv_cache_tokens",
        "cache_share",
        "max_batch_tokens",
        "max_sequences",
        "max_queued",
        "queue_timeout_s",
        "prefix_cache",
        "speculation",
    ),
    "process": (),
}
METAVARS = {"int": "N", "float": "N", "Path": "PATH", "tuple[str, ...]": "NAMES"}


def add_parser(commands: Commands) -> None:
    parser = add_command(
        commands,
        "serve",
        summary="serve models over HTTP",
        description="Serve models over HTTP: a chat page, POST /generate, and an OpenAI-compatible"
        "\nAPI under /v1. Stops on Ctrl-C or SIGTERM, after running answers have finished.",
        examples=examples(
            ("appliance serve", "serve the embedded model on this machine only"),
            (
                "appliance serve --model ~/models/SmolLM2-135M --port 8080",
                "serve a model of your own",
            ),
            (
                "appliance serve --model embedded --model big=DIR,quantization=int8",
                "serve two models",
            ),
            (
                "appliance serve --host 0.0.0.0 --allowed-hosts llama.example",
                "serve other machines",
            ),
            ("APPLIANCE_MAX_QUEUED=16 appliance serve", "set a variable in place of a flag"),
            after="A flag wins over its variable.\n"
            "Exit code 2: a setting is wrong; 3: a model is refused.",
        ),
    )
    parser.usage = "appliance serve [--model DIR]... [--host NAME] [--port N] [flags below]"
    groups = {title: parser.add_argument_group(title) for title in GROUPS}
    for field in KNOWN.values():
        add_setting(groups[group_of(field.name)], field)


def run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    configuration = load_configuration(
        server_variables(environ), given(arguments), arguments.model_path or ()
    )
    gc.disable()  # the imports make objects that stay: looking through them takes a tenth longer
    from appliance.serve.wiring import serve  # takes half a second: FastAPI, numpy

    gc.enable()
    return serve(configuration, Ink.of(sys.stderr, environ))


def add_setting(group: argparse._ArgumentGroup, field: Field[Any]) -> None:
    """Add the flag of a setting; settings.py parses its text later."""
    group.add_argument(
        *flags_of(field.name),
        dest=field.name,
        action="append" if field.name == "model_path" else "store",
        metavar=metavar(field),
        help=f"{field.metadata['help']}\n[{', '.join(twins_of(field.name))}{default(field)}]",
    )


def metavar(field: Field[Any]) -> str:
    choices = "|".join(field.metadata["choices"])
    if len(flags_of(field.name)) > 1 and choices:
        return "NAME"  # argparse repeats it after each flag
    return choices or METAVARS.get(base_type(field), "NAME")


def given(arguments: argparse.Namespace) -> dict[str, object]:
    """Return the settings on the command line, parsed."""
    texts = {name: getattr(arguments, name) for name in KNOWN if name != "model_path"}
    return {
        name: parse_setting(flags_of(name)[0], KNOWN[name], text)
        for name, text in texts.items()
        if text is not None
    }


def server_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without the variables of `appliance chat` and `appliance complete`."""
    return {name: value for name, value in environ.items() if not name.startswith(CLIENT_PREFIX)}


def group_of(name: str) -> str:
    return next((title for title, names in GROUPS.items() if name in names), "process")


def flags_of(name: str) -> list[str]:
    older = [flag_name(older) for older, field_name in ALIASES.items() if field_name == name]
    flag = flag_name(name)
    return ["--model", flag] if name == "model_path" else [flag, *older]


def twins_of(name: str) -> list[str]:
    familiar = [variable for variable, field_name in FAMILIAR_NAMES.items() if field_name == name]
    return [*variables_of(name), *familiar]


def default(field: Field[Any]) -> str:
    """Return the default as the help shows it; the help text itself explains None and ()."""
    if field.default in (None, ()):
        return ""
    number = isinstance(field.default, float)
    return f"; default {field.default:g}" if number else f"; default {field.default}"


def base_type(field: Field[Any]) -> str:
    return str(field.type).removesuffix(" | None")
