"""Defines the flags of the commands that talk to a server, each with its variable."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from appliance.errors import SettingsError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Mapping

# Not settings: `appliance serve` ignores these variables.
CLIENT_PREFIX = "APPLIANCE_CLIENT_"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientFlag:
    """A flag of the commands that talk to a server, with the variable `APPLIANCE_CLIENT_<NAME>`."""

    name: str
    metavar: str
    help: str
    kind: Literal["text", "a number", "a whole number"] = "text"
    default: str | None = None
    familiar: str | None = None  # a variable that other clients read; ours wins if both are set

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        return CLIENT_PREFIX + self.name.upper()


# Of both client commands.
SERVER_FLAGS = (
    ClientFlag(
        name="url",
        metavar="URL",
        help="the server's address; any server with an OpenAI-compatible API",
        default="http://127.0.0.1:8000",
        familiar="OPENAI_BASE_URL",
    ),
    ClientFlag(
        name="api_key",
        metavar="KEY",
        help="sent as a bearer token, for servers that require one",
        familiar="OPENAI_API_KEY",
    ),
    ClientFlag(name="model", metavar="NAME", help="name of the model; default: the server's first"),
)
SAMPLING_FLAGS = (
    ClientFlag(
        name="temperature",
        metavar="T",
        help="randomness; 0 always takes the likeliest token",
        kind="a number",
        default="0.7",
    ),
    ClientFlag(
        name="top_p",
        metavar="P",
        help="choose among the likeliest tokens whose probabilities sum to P",
        kind="a number",
    ),
    ClientFlag(
        name="seed",
        metavar="N",
        help="seed of the random choices; the same seed gives the same answer",
        kind="a whole number",
    ),
)
SYSTEM_FLAG = ClientFlag(name="system", metavar="TEXT", help="system prompt")
MAX_TOKENS_FLAG = ClientFlag(
    name="max_tokens",
    metavar="N",
    help="maximum length of an answer; default: the server's",
    kind="a whole number",
)
MAX_NEW_TOKENS_FLAG = ClientFlag(
    name="max_new_tokens",
    metavar="N",
    help="maximum length of the continuation",
    kind="a whole number",
    default="128",
)
KNOWN_VARIABLES = {
    flag.variable
    for flag in (
        *SERVER_FLAGS,
        *SAMPLING_FLAGS,
        SYSTEM_FLAG,
        MAX_TOKENS_FLAG,
        MAX_NEW_TOKENS_FLAG,
    )
}


def add_client_flags(parser: argparse.ArgumentParser, flags: Iterable[ClientFlag]) -> None:
    for flag in flags:
        names = " or ".join(filter(None, (flag.variable, flag.familiar)))
        default = "" if flag.default is None else f"; default {flag.default}"
        parser.add_argument(
            flag.flag, metavar=flag.metavar, help=f"{flag.help}\n[{names}{default}]"
        )


def client_values(
    flags: Iterable[ClientFlag], arguments: argparse.Namespace, environ: Mapping[str, str]
) -> dict[str, str | int | float]:
    """Return the values; a flag wins over its variable, then the familiar one, then the default."""
    for variable in sorted(environ):
        if variable.startswith(CLIENT_PREFIX) and variable not in KNOWN_VARIABLES:
            known = ", ".join(sorted(KNOWN_VARIABLES))
            raise SettingsError(f"{variable} is not known. Known: {known}.")
    values: dict[str, str | int | float] = {}
    for flag in flags:
        for source, text in _sources(flag, arguments, environ):
            if text:
                values[flag.name] = _parse(flag, source, text)
                break
    return values


def _sources(
    flag: ClientFlag, arguments: argparse.Namespace, environ: Mapping[str, str]
) -> Iterable[tuple[str, str | None]]:
    yield flag.flag, getattr(arguments, flag.name)
    yield flag.variable, environ.get(flag.variable)
    if flag.familiar:
        yield flag.familiar, environ.get(flag.familiar)
    yield "the default", flag.default


def _parse(flag: ClientFlag, source: str, text: str) -> str | int | float:
    try:
        if flag.kind == "text":
            return text
        return int(text) if flag.kind == "a whole number" else float(text)
    except ValueError:
        raise SettingsError(f"{source} is {text!r}, which is not {flag.kind}.") from None
