"""`appliance key`: makes, lists and revokes the keys of a server's `--keys` file."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.cli.parsing import add_command, examples
from appliance.cli.parts import add_part, add_parts, run_part
from appliance.errors import SettingsError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping
    from datetime import datetime

    from appliance.access.grant import Grant
    from appliance.access.key_file import Key
    from appliance.cli.parsing import Commands

MAX_DAYS = 365_000
DAYS = {"d": 1, "w": 7, "y": 365}
LIMITS = {
    "requests_per_minute": "maximum number of requests in a minute",
    "tokens_per_minute": "maximum number of tokens in a minute, of prompts and answers",
    "concurrent": "maximum number of requests in progress",
    "priority": "from -100 to 100, higher goes first; default 0",
}


def add_parser(commands: Commands) -> None:
    parser = add_command(
        commands,
        "key",
        summary="make, list and revoke the keys of a server",
        description="Make, list and revoke the keys in the file of `appliance serve --keys FILE`."
        "\nA running server reads the file again within a second.",
        examples=examples(
            ("appliance key new ada --keys keys.json", "make a key without limits, for all models"),
            (
                "appliance key new ci --keys keys.json --expires 90d --concurrent 4",
                "make a key with an end and a limit",
            ),
            (
                "appliance key revoke ci --keys keys.json",
                "revoke a key, and end its running answers",
            ),
        ),
    )
    parts = add_parts(parser)
    new = add_part(parts, "new", run_new, summary="make a key and print it once")
    new.add_argument("name", metavar="NAME", help="name of the user of the key")
    new.add_argument(
        "--expires", metavar="WHEN", help="when it ends: a day such as 2027-01-31, or 90d, 12w, 1y"
    )
    new.add_argument(
        "--models", metavar="NAMES", help="models that it may use, comma-separated; default: all"
    )
    for name, help_text in LIMITS.items():
        new.add_argument(f"--{name.replace('_', '-')}", type=int, metavar="N", help=help_text)
    listing = add_part(
        parts, "list", run_list, summary="list the names, limits and ends of the keys"
    )
    revoke = add_part(parts, "revoke", run_revoke, summary="revoke a key")
    revoke.add_argument("name", metavar="NAME", help="name of the user of the key")
    for part in (new, listing, revoke):
        part.add_argument("--keys", type=Path, required=True, metavar="FILE", help="file of keys")


run = run_part


def run_new(arguments: argparse.Namespace, _: Mapping[str, str]) -> int:
    from datetime import UTC, datetime

    from appliance.access.key_file import KeyFile

    expires = when(arguments.expires, datetime.now(UTC))
    file = KeyFile(arguments.keys)
    secret, key = file.add(arguments.name, expires=expires, grant=grant(arguments))
    print(f"Key of {key.name}, shown only this once:", file=sys.stderr)
    print(secret)
    print(f"Use it as:  Authorization: Bearer {secret[:6]}…", file=sys.stderr)
    return 0


def run_list(arguments: argparse.Namespace, _: Mapping[str, str]) -> int:
    from datetime import UTC, datetime

    from appliance.access.key_file import KeyFile

    now = datetime.now(UTC)
    heading = ("NAME", "STATUS", "EXPIRES", "MODELS", "LIMITS", "ID")
    rows = [heading, *(row(key, now) for key in KeyFile(arguments.keys).read())]
    widths = [max(len(line[column]) for line in rows) for column in range(len(heading))]
    for line in rows:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        print("  ".join(cells).rstrip())
    return 0


def run_revoke(arguments: argparse.Namespace, _: Mapping[str, str]) -> int:
    from appliance.access.key_file import KeyFile

    key = KeyFile(arguments.keys).revoke(arguments.name)
    print(f"The key of {key.name} is revoked.")
    return 0


def row(key: Key, now: datetime) -> tuple[str, ...]:
    models, limits = key.grant.models, key.grant.as_fields()
    limits.pop("models", None)
    short = {"requests_per_minute": "requests/min", "tokens_per_minute": "tokens/min"}
    return (
        key.name,
        key.status(now),
        "never" if key.expires is None else f"{key.expires:%Y-%m-%d}",
        "all" if models is None else ",".join(sorted(models)),
        ", ".join(f"{value} {short.get(name, name)}" for name, value in limits.items()) or "none",
        key.key_id,
    )


def grant(arguments: argparse.Namespace) -> Grant:
    from appliance.access.grant import BadGrant, read_grant

    fields: dict[str, object] = {name: getattr(arguments, name) for name in LIMITS}
    if arguments.models is not None:
        fields["models"] = [each.strip() for each in arguments.models.split(",") if each.strip()]
    try:
        return read_grant(fields)
    except BadGrant as error:
        raise SettingsError(f"{error}.") from None


def when(text: str | None, now: datetime) -> datetime | None:
    """Return the time that `--expires` names: the beginning of a day in UTC, or days from now."""
    from datetime import UTC, datetime, timedelta

    if text is None:
        return None
    if match := re.fullmatch(r"(\d{1,4})([dwy])", text):
        days = min(int(match[1]) * DAYS[match[2]], MAX_DAYS)
        expires = now.replace(microsecond=0) + timedelta(days=days)
    else:
        try:
            expires = datetime.fromisoformat(text)
        except ValueError:
            raise SettingsError(
                f"--expires is {text[:40]!r}; write a day such as 2027-01-31, or 90d, 12w, 1y."
            ) from None
        expires = expires if expires.tzinfo else expires.replace(tzinfo=UTC)
    if expires <= now:
        raise SettingsError(f"--expires is {text[:40]!r}, which is past.")
    return expires
