"""Lines of keys: the same paths that tomllib leads along, each where it is written."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance_release.flox.lines import KeyPath, Span, locate_keys

REPOSITORY = Path(__file__).parents[4]

EVERYTHING = '''
title = "a # b ]"   # a comment = "x"
"quoted key" = 1
"with \\"quote\\"".'and.dot' = 2
dates = [1979-05-27 07:32:00, 2026-11-21]
numbers = [1, 2.5, -inf, 0xff, [3, [4]]]  # nested

[a.b]
c = { d = 1, "e f" = [ { g = "}" }, { h = """x"y""" } ] }
i.j.k = true

[[list]]
name = "first"
[list.inner]
x = 1
[[list]]
[[list.deep]]
y = \'\'\'
  "[not a header]"
  z = 1\'\'\'
last = """
four: """""
'''


def paths(value: object, path: KeyPath = ()) -> Iterator[KeyPath]:
    """Every path below a value that tomllib has read."""
    if isinstance(value, dict):
        children: list[tuple[str | int, object]] = list(value.items())
    else:
        children = list(enumerate(value)) if isinstance(value, list) else []
    for name, child in children:
        yield (*path, name)
        yield from paths(child, (*path, name))


def line_of(text: str, fragment: str) -> int:
    return text[: text.index(fragment)].count("\n") + 1


@pytest.mark.parametrize(
    "text",
    [
        EVERYTHING,
        EVERYTHING.replace("\n", "\r\n"),
        *(path.read_text(encoding="utf-8") for path in REPOSITORY.glob("*.toml")),
        *(path.read_text(encoding="utf-8") for path in REPOSITORY.glob("*/.flox/env/*.toml")),
    ],
)
def test_every_path_that_tomllib_reads_has_its_lines_and_no_other(text: str) -> None:
    assert set(locate_keys(text)) == set(paths(tomllib.loads(text)))


@pytest.mark.parametrize(
    ("path", "fragment"),
    [
        (("title",), "title"),
        (('with "quote"', "and.dot"), '"with'),
        (("dates", 1), "dates"),
        (("a",), "[a.b]"),
        (("a", "b", "c", "e f", 1, "h"), "c = {"),
        (("a", "b", "i", "j", "k"), "i.j.k"),
        (("list",), "[[list]]"),
        (("list", 0, "inner", "x"), "x = 1"),
        (("list", 1, "deep", 0, "y"), "y = '''"),
        (("list", 1, "deep", 0, "last"), "last ="),
    ],
)
def test_a_path_is_where_its_key_is_written(path: KeyPath, fragment: str) -> None:
    assert locate_keys(EVERYTHING)[path].first == line_of(EVERYTHING, fragment)


def test_a_value_of_several_lines_ends_where_its_quotes_do() -> None:
    text = "a = 1\nscript = '''\nfirst\nsecond\n'''\nb = 2\n"
    assert locate_keys(text)["script",] == Span(2, 5)
    assert locate_keys(text)["b",] == Span(6, 6)


KEYS = st.text(st.characters(codec="ascii", categories=("L", "N")), min_size=1, max_size=5)
STRINGS = st.text(
    st.characters(codec="utf-8", min_codepoint=32, exclude_characters="\x7f"), max_size=20
)


@given(st.dictionaries(KEYS, st.lists(STRINGS, max_size=3), max_size=5))
def test_no_string_is_mistaken_for_structure(values: dict[str, list[str]]) -> None:
    def quoted(text: str) -> str:
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

    lines = [f"{key} = [{', '.join(map(quoted, value))}]" for key, value in values.items()]
    text = "\n".join(lines)
    found = locate_keys(text)
    assert set(found) == set(paths(tomllib.loads(text)))
    for number, key in enumerate(values, start=1):
        assert found[key,] == Span(number, number)
