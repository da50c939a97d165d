"""A key is recognized by its form alone, and a mistyped one is no key."""

from __future__ import annotations

import re

import pytest

from appliance.access.secret import hash_secret, is_well_formed, new_secret

SCANNERS = r"\bap-[a-z2-7]{59}\b"  # what docs/access.md gives to secret scanners
EXAMPLE = new_secret()


def test_a_new_key_is_well_formed_and_like_no_other() -> None:
    keys = {new_secret() for _ in range(50)}
    assert len(keys) == 50
    assert all(is_well_formed(key) for key in keys)


def test_a_secret_scanner_finds_a_key_in_a_text() -> None:
    assert re.findall(SCANNERS, f'api_key = "{EXAMPLE}"  # mine') == [EXAMPLE]


@pytest.mark.parametrize("index", range(3, len(EXAMPLE), 7))
def test_a_mistyped_key_fails_its_checksum(index: int) -> None:
    other = "a" if EXAMPLE[index] != "a" else "b"
    assert not is_well_formed(EXAMPLE[:index] + other + EXAMPLE[index + 1 :])


@pytest.mark.parametrize(
    "text", ["", "ap-", EXAMPLE[:-1], EXAMPLE + "a", EXAMPLE.upper(), f" {EXAMPLE}", EXAMPLE[3:]]
)
def test_what_has_another_form_is_no_key(text: str) -> None:
    assert not is_well_formed(text)


def test_the_hash_is_the_one_that_every_tool_computes() -> None:
    assert hash_secret("abc").startswith("ba7816bf8f01cfea414140de5dae2223")
