"""A reference is pinned, or it says what to write instead."""

from __future__ import annotations

import pytest

from appliance.errors import ReleaseError
from appliance_release.pins.reference import Reference, parse_reference, why_not_pinned


def test_a_pinned_reference_is_read_and_written_alike() -> None:
    reference = parse_reference("acme/llama-runtime:12")
    assert reference == Reference("acme", "llama-runtime", 12)
    assert str(reference) == "acme/llama-runtime:12"
    assert str(reference.at(3)) == "acme/llama-runtime:3"
    assert parse_reference("..a/.b:1") == Reference("..a", ".b", 1)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("acme/x", 'names no generation, so each start of a pod runs what is live then. Pin'),
        ("acme/x@2", 'has "@", which Flox does not read. A generation follows a colon: "acme/x:2"'),
        ("acme/x:latest", "has 'latest' for a generation, which is a number"),
        ("acme/x:", "has '' for a generation"),
        ("acme/x:" + "9" * 5000, "for a generation, which is a number"),
        ("acme/x:02", "has '02' for a generation"),
        ("acme/x:-1", "has '-1' for a generation"),
        ("x:2", "is not OWNER/NAME:GENERATION"),
        ("a/b/c:2", "is not OWNER/NAME:GENERATION"),
        ("../..:1", "is not OWNER/NAME:GENERATION"),
        ("acme/.:1", "is not OWNER/NAME:GENERATION"),
        ("", "is not OWNER/NAME:GENERATION"),
        ("acme/x:2\n", "for a generation"),
        (2, "is not a string"),
        (None, "is not a string"),
    ],
)  # fmt: skip
def test_the_refusal_of_what_is_not_pinned_says_how_to_pin_it(value: object, said: str) -> None:
    assert said in str(why_not_pinned(value))


def test_parsing_what_is_not_pinned_shows_the_value() -> None:
    with pytest.raises(ReleaseError, match=r"^'acme/x' names no generation"):
        parse_reference("acme/x")
