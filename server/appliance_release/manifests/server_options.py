"""Reads what a container gives its server: flags of the command line, which win, and variables."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from appliance.cli.serve import add_setting, flags_of
from appliance.models.options import ALIASES, KNOWN
from appliance.settings import FAMILIAR_NAMES, PREFIX
from appliance_release.manifests.kubernetes_manifest import mapping, number, sequence

if TYPE_CHECKING:
    from appliance_release.manifests.yaml_document import Path

    Container = dict[str, object]


class WrongArguments(Exception):
    """The server's own parser refuses the command line."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise WrongArguments(message)


@dataclass(frozen=True, slots=True)
class Option:
    """A value, a source of one, and where it stands in the container."""

    value: object
    path: Path


def option(container: Container, field: str) -> Option | None:
    """Returns what the server uses; None if it is set nowhere."""
    try:
        flag = flags(container).get(field)
    except WrongArguments:
        flag = None  # which is a finding of its own
    return flag or variables(container).get(field)


def flags(container: Container) -> dict[str, Option]:
    """Returns the settings on the command line, as texts."""
    words = arguments(container)
    parser = _Parser(add_help=False, allow_abbrev=False)
    for field in KNOWN.values():
        add_setting(parser.add_argument_group(), field)
    given = vars(parser.parse_args([word for word, _ in words]))
    return {
        name: Option(value[-1] if isinstance(value, list) else value, _place(name, words))
        for name, value in given.items()
        if value is not None
    }


def arguments(container: Container) -> list[tuple[str, Path]]:
    """Returns the words after the program's name, with their places."""
    command = [
        (str(word), ("command", index))
        for index, word in enumerate(sequence(container.get("command")))
    ]
    given: list[tuple[str, Path]] = [
        (str(word), ("args", index)) for index, word in enumerate(sequence(container.get("args")))
    ]
    words: list[tuple[str, Path]] = [*command[1:], *given] if command else given
    return words[1:] if words[:1] and words[0][0] == "serve" else words


def variables(container: Container) -> dict[str, Option]:
    """Returns the settings in variables; of two with one name Kubernetes takes the last."""
    last: dict[str, Option] = {}
    for index, variable in enumerate(sequence(container.get("env"))):
        found = mapping(variable)
        name = str(found.get("name"))
        last[name] = Option(found.get("value", found.get("valueFrom")), ("env", index, "value"))
    set_here = {name: each for name, each in last.items() if each.value not in ("", None)}
    familiar = {field: set_here[name] for name, field in FAMILIAR_NAMES.items() if name in set_here}
    own = {
        field_of(name): each for name, each in sorted(set_here.items()) if name.startswith(PREFIX)
    }
    return familiar | own


def field_of(variable: str) -> str:
    name = variable.removeprefix(PREFIX).lower()
    return ALIASES.get(name, name)


def value_of(container: Container, field: str) -> object:
    """Returns a setting as text, its source if set by reference, None if not set."""
    found = option(container, field)
    return None if found is None else found.value


def number_of(container: Container, field: str) -> float | None:
    """Returns the number that the server will use; None if only the cluster knows."""
    found = option(container, field)
    return float(str(KNOWN[field].default)) if found is None else number(found.value)


def path_of(path: Path, container: Container, field: str) -> Path:
    """Returns the path of the setting's value, or the path that its variable would have."""
    found = option(container, field)
    return (*path, "env", PREFIX + field.upper()) if found is None else (*path, *found.path)


def _place(field: str, words: list[tuple[str, Path]]) -> Path:
    names = flags_of(field)
    places = [
        place
        for index, (word, own) in enumerate(words)
        if word.partition("=")[0] in names
        for place in [own if "=" in word else words[min(index + 1, len(words) - 1)][1]]
    ]
    return places[-1]
