"""YAML is read as data alone, with lines, and what could mislead a reader is refused."""

from __future__ import annotations

import pytest

from appliance.errors import ReleaseError
from appliance_release.manifests.yaml_document import read_documents


def test_values_and_their_lines_are_read() -> None:
    first, second = read_documents("a: 1\nb:\n  - x\n  - c: {d: yes}\n---\n---\n- 2\n", "f.yaml")
    assert first.value == {"a": 1, "b": ["x", {"c": {"d": True}}]}
    assert first.line_of(("b", 1, "c", "d")) == 4
    assert second.value == [2]


def test_the_line_of_what_is_absent_is_that_of_what_is_around_it() -> None:
    (document,) = read_documents("a:\n  b: 1\n", "f.yaml")
    assert document.line_of(("a", "c", "d")) == 1
    assert document.line_of(("a", "b")) == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [1,\n", r"f\.yaml:2: this is not YAML"),
        ("a: 1\nb: 2\na: 3\n", r"f\.yaml:3: 'a' comes a second time here"),
        ("a: &x 1\nb: *x\n", r"f\.yaml:1: anchors"),
        ("a: {<<: {b: 1}}\n", r"f\.yaml:1: a key here is not a plain word"),
        ("? [a]\n: 1\n", r"f\.yaml:1: a key here is not a plain word"),
        ("a: !!python/object/apply:os.system [id]\n", r"f\.yaml:1: the tag .* is not read"),
        ("a: !!python/name:os.system x\n", r"f\.yaml:1: this is not YAML: could not"),
        ("a: " + "[" * 80 + "]" * 80, "nested deeper than 60"),
        ("a: " + "[" * 9000, "nested deeper than 60"),
        ("a: !!set {x, y}\n", r"f\.yaml:1: the tag .*:set is not read here"),
        ("a: '" + "x" * 4_000_001 + "'", "4000000 at most"),
        ("a: \x00", "this is not YAML"),
    ],
    ids=[
        "cut off",
        "twice",
        "anchor",
        "merge",
        "key",
        "tag",
        "tag of a word",
        "deep",
        "very deep",
        "set",
        "long",
        "control",
    ],
)
def test_what_is_not_plain_data_is_refused_with_its_line(text: str, said: str) -> None:
    with pytest.raises(ReleaseError, match=said):
        read_documents(text, "f.yaml")
