"""Writes the pages of docs/reference from the code; with --check, names those that are stale."""

from __future__ import annotations

import argparse
import ast
import functools
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import Field
from pathlib import Path
from typing import Any

from appliance import errors
from appliance.api.schema.neutral import OF_CHAT, OF_TEXT, Neutral
from appliance.cli.main import all_groups, build_parser
from appliance.cli.serve import GROUPS, flags_of, group_of, twins_of
from appliance.errors import CODES_OF_RAISERS, RequestError, ServiceError
from appliance.metrics import Metrics
from appliance.models.options import KNOWN
from appliance.serve.app import FACES
from tests.unit.test_imports import RULES

REPOSITORY = Path(__file__).resolve().parents[1]
SOURCE = REPOSITORY / "server"
PAGES = REPOSITORY / "docs" / "reference"
PACKAGES = ("appliance", "appliance_release")

MARK = "<!-- Written by `make docs` from the code. Do not edit. -->"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a page is old")
    parser.add_argument("--directory", type=Path, default=PAGES, help="where the pages are")
    arguments = parser.parse_args(argv)
    stale = list(stale_pages(arguments.directory))
    for path, text in stale:
        if not arguments.check:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        print(f"{path.name}: {'stale, run `make docs`' if arguments.check else 'written'}")
    return 1 if stale and arguments.check else 0


def stale_pages(directory: Path = PAGES) -> Iterator[tuple[Path, str]]:
    """Yield the pages that differ from what the code says, with their new text."""
    for name, text in pages().items():
        path = directory / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            yield path, text


@functools.cache
def pages() -> dict[str, str]:
    return {
        "modules.md": modules(),
        "imports.md": import_rules(),
        "settings.md": settings(),
        "metrics.md": metrics(),
        "routes.md": routes(),
        "other-parameters.md": other_parameters(),
        "errors.md": error_codes(),
        "commands.md": commands(),
    }


def page(title: str, introduction: str, *sections: str) -> str:
    return "\n\n".join([f"# {title}", MARK, introduction, *sections]) + "\n"


def table(header: tuple[str, ...], rows: Iterable[Iterable[str]]) -> str:
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(cell, line))} |" for line in lines)


def cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip().replace("|", r"\|")


def code(text: str) -> str:
    return f"`{text}`"


def modules() -> str:
    rooms = sorted(
        {path.parent for package in PACKAGES for path in (SOURCE / package).rglob("*.py")}
    )
    return page(
        "Modules",
        "Every Python module of the server and of the release tools, by folder, with the sentence"
        " that opens it. [The architecture](../architecture.md) says how they work together.",
        *map(room, rooms),
    )


def room(directory: Path) -> str:
    rows = [
        (code(path.name), duty(path))
        for path in sorted(directory.glob("*.py"))
        if path.name != "__init__.py"
    ]
    parts = [f"## {directory.relative_to(SOURCE).as_posix()}", duty(directory / "__init__.py")]
    return "\n\n".join([*parts, table(("module", "duty"), rows)] if rows else parts)


def duty(path: Path) -> str:
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").splitlines()[0]


def import_rules() -> str:
    rows = [
        (
            code(name),
            ", ".join(map(code, rule.rooms.split())),
            ", ".join(map(code, rule.libraries.split())),
        )
        for name, rule in RULES.items()
    ]
    return page(
        "Import rules",
        "What the modules of a room may import: itself, these rooms of ours with all below them,"
        " these libraries, and the standard library. The rule of a module is that of the innermost"
        " room which has one. `release` is `appliance_release`; all others are in `appliance`.",
        table(("room", "rooms", "libraries"), rows),
    )


def settings() -> str:
    groups: dict[str, list[Field[Any]]] = {title: [] for title in GROUPS}
    for field in KNOWN.values():
        groups[group_of(field.name)].append(field)
    header = ("flag", "variable", "default", "values", "meaning")
    return page(
        "Settings",
        "The flags of `appliance serve`. A flag wins over its variable."
        " [Operations](../guides/operations.md#settings) explains the rules and the effects.",
        *(
            f"## {title.capitalize()}\n\n{table(header, map(setting_row, group))}"
            for title, group in groups.items()
        ),
    )


def setting_row(field: Field[Any]) -> tuple[str, ...]:
    default = "" if field.default in (None, ()) else code(str(field.default).removesuffix(".0"))
    return (
        ", ".join(map(code, flags_of(field.name))),
        ", ".join(map(code, twins_of(field.name))),
        default,
        values(field.metadata),
        field.metadata["help"],
    )


def values(metadata: Mapping[str, Any]) -> str:
    if metadata["choices"]:
        return ", ".join(map(code, metadata["choices"]))
    if metadata["low"] is None:
        return ""
    return f"{metadata['low']:,} to {metadata['high']:,}"


def metrics() -> str:
    described = Metrics()
    labels = {
        each.describe()[0].name: getattr(each, "_labelnames", ())
        for each in vars(described).values()
        if hasattr(each, "describe")
    }
    rows = [
        (
            code(f"{each.name}_total" if each.type == "counter" else each.name),
            each.type,
            ", ".join(map(code, labels.get(each.name, ("model",)))),
            each.documentation,
        )
        for each in described.collect()
        if each.name.startswith("appliance_")
    ]
    return page(
        "Metrics",
        "What `GET /metrics` shows, beside `process_*` and `python_info` of the client library."
        " [Operations](../guides/operations.md#metrics) says which deserve an alert.",
        table(("series", "type", "labels", "meaning"), sorted(rows)),
    )


def routes() -> str:
    rows = [
        (
            code(f"{route.method} {route.path}"),
            face.name,
            "yes" if route.is_public else "",
            route.summary or route.description.partition("\n")[0],
        )
        for face in FACES
        for route in face.routes
    ]
    return page(
        "Routes",
        "Every route of the application, with the face that it belongs to and whether it is"
        " answered without a key where keys are on. [The API](../api.md) explains parameters and"
        " answers; a running server describes itself at `/docs`, `/redoc` and `/openapi.json`.",
        table(("route", "face", "without a key", "summary"), rows),
    )


def other_parameters() -> str:
    return page(
        "Parameters of other servers",
        "Routers, libraries and benchmarks made for other servers write these parameters into every"
        " request. `/generate`, `/v1/completions` and `/v1/chat/completions` accept each of them,"
        " unless it is one of [their own](../api.md), with `null` and with a value that asks for"
        " what happens anyway. With another value it is refused by name, with the reason.",
        table(
            ("parameter", "accepted", "another value is refused"), map(other_row, sorted(OF_CHAT))
        ),
    )


def other_row(name: str) -> tuple[str, ...]:
    of_chat, of_text = OF_CHAT[name], OF_TEXT[name]
    if of_chat == of_text:
        return code(name), accepted(of_chat), of_chat.why
    return (
        code(name),
        f"chat {accepted(of_chat)}, else {accepted(of_text)}",
        f"chat: {of_chat.why}; else: {of_text.why}",
    )


def accepted(rule: Neutral) -> str:
    if rule.takes_any:
        return "any value"
    return ", ".join(code(json.dumps(value)) for value in rule.values) or "only `null`"


def error_codes() -> str:
    described = sorted((status, name, text) for name, (status, text) in code_meanings().items())
    return page(
        "Error codes",
        "Every code that an error of the API can have. A code never changes once it is released."
        " [The API](../api.md#errors) shows the error object.",
        table(
            ("code", "status", "when"),
            ((code(name), str(status), text) for status, name, text in described),
        ),
    )


def code_meanings() -> dict[str, tuple[int, str]]:
    """Status and meaning by code: those of classes, and those that raisers give."""
    found = dict(CODES_OF_RAISERS)
    for error in vars(errors).values():
        if isinstance(error, type) and issubclass(error, RequestError | ServiceError):
            own = vars(error).get("default_code") or vars(error).get("code")
            if isinstance(own, str):
                found[own] = error.status, (error.__doc__ or "").partition("\n")[0]
    return found


def commands() -> str:
    groups = all_groups()
    choices = subcommands(build_parser(groups))
    sections = [
        part
        for group in groups
        for part in (
            f"## {group.heading.capitalize()}",
            *(describe(choices[name]) for name in group.commands),
        )
    ]
    return page("Commands", "What `appliance COMMAND --help` says, of every command.", *sections)


def subcommands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in parser._actions:  # noqa: SLF001 - argparse has no public way to ask
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            return dict(action.choices)
    return {}


def describe(parser: argparse.ArgumentParser) -> str:
    """Describe a command, its arguments and examples, and then the commands below it."""
    rows = [row for action in parser._actions for row in argument_row(action)]  # noqa: SLF001
    parts = [f"### {parser.prog}", parser.description or ""]
    if parser.prog == "appliance serve":
        parts.append("Its flags are [the settings](settings.md).")
    elif rows:
        parts.append(table(("argument", "meaning"), rows))
    if parser.epilog:
        parts.append(f"```text\n{parser.epilog}\n```")
    parts += [describe(each) for each in subcommands(parser).values()]
    return "\n\n".join(parts)


def argument_row(action: argparse.Action) -> Iterator[tuple[str, str]]:
    if isinstance(action, argparse._HelpAction | argparse._SubParsersAction):  # noqa: SLF001
        return
    metavar = action.metavar or (action.dest.upper() if action.nargs != 0 else "")
    names = action.option_strings or [""]
    shown = ", ".join(code(f"{name} {metavar}".strip()) for name in names)
    yield shown, (action.help or "").replace("\n", " ")


if __name__ == "__main__":
    sys.exit(main())
