"""`appliance key` makes keys that servers take, shows what there is, and ends access."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import pytest

from appliance.access.authenticator import KeyRing
from appliance.cli.key import when
from appliance.cli.main import main
from appliance.errors import SettingsError


def run(*arguments: str) -> int:
    return main(["key", *arguments], {})


@pytest.fixture
def keys(tmp_path: Path) -> str:
    return str(tmp_path / "keys.json")


def test_a_new_key_is_alone_on_standard_output_and_valid(
    keys: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("new", "ada", "--keys", keys, "--models", "a,b", "--requests-per-minute", "5") == 0
    said = capsys.readouterr()
    secret = said.out.removesuffix("\n")
    assert "shown only this once" in said.err
    assert secret not in said.err
    principal = asyncio.run(KeyRing(Path(keys)).authenticate(secret))
    assert principal is not None
    assert principal.models == frozenset({"a", "b"})
    assert principal.limits.requests_per_minute == 5


def test_the_list_shows_each_key_but_not_the_secret(
    keys: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run("new", "ada", "--keys", keys, "--expires", "2999-01-31", "--tokens-per-minute", "900")
    run("new", "eve", "--keys", keys)
    run("revoke", "eve", "--keys", keys)
    secret = capsys.readouterr().out.split()[0]
    assert run("list", "--keys", keys) == 0
    out = capsys.readouterr().out
    heading, ada, eve = out.splitlines()
    assert heading.split() == ["NAME", "STATUS", "EXPIRES", "MODELS", "LIMITS", "ID"]
    assert ada.split()[:4] == ["ada", "valid", "2999-01-31", "all"]
    assert "900 tokens/min" in ada
    assert eve.split()[:2] == ["eve", "revoked"]
    assert secret not in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["new", "a b"], "name of a key has 1 to 64 characters"),
        (["new", "ada", "--expires", "soon"], "--expires is 'soon'; write a day such as"),
        (["new", "ada", "--expires", "2001-01-01"], "which is past"),
        (["new", "ada", "--concurrent", "0"], "`concurrent` must be a whole number from 1"),
        (["new", "ada", "--models", ","], "`models` must be a list of names"),
        (["revoke", "ada"], "has no key named ada that could be revoked"),
        (["list"], "cannot be read: No such file"),
    ],
)
def test_what_cannot_be_done_is_said(
    arguments: list[str], said: str, keys: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments, "--keys", keys) == 2
    assert said in capsys.readouterr().err
    assert not Path(keys).exists()


NOW = datetime(2026, 12, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("90d", datetime(2027, 3, 1, 12, tzinfo=UTC)),
        ("2w", datetime(2026, 12, 15, 12, tzinfo=UTC)),
        ("1y", datetime(2027, 12, 1, 12, tzinfo=UTC)),
        ("2027-01-31", datetime(2027, 1, 31, tzinfo=UTC)),
        (None, None),
    ],
)
def test_an_end_is_a_day_or_a_time_from_now(text: str | None, time: datetime | None) -> None:
    assert when(text, NOW) == time


@pytest.mark.parametrize("text", ["0d", "-1d", "99999999d", "d", "2026-12-01"])
def test_an_end_that_is_none_or_past_is_refused(text: str) -> None:
    with pytest.raises(SettingsError):
        when(text, NOW)
