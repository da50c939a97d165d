"""`appliance audit`: checks the log of answers that a server writes with `--audit-log DIR`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.cli.parsing import add_command, examples
from appliance.cli.parts import add_part, add_parts, run_part
from appliance.console.ink import printable
from appliance.errors import AccessError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from appliance.cli.parsing import Commands

EXIT_FOUND = 1


def add_parser(commands: Commands) -> None:
    parser = add_command(
        commands,
        "audit",
        summary="check the audit log of a server",
        description="Check the directory of `appliance serve --audit-log DIR`: each entry has the"
        "\nhash of the one before, so that an alteration shows.",
        examples=examples(
            ("appliance audit verify audit", "check the whole chain"),
            (
                "appliance audit verify audit --head 3fb2c81e90a4d",
                "check also that its end was not cut off",
            ),
            ("appliance audit tail audit", "show the last answers"),
        ),
    )
    parts = add_parts(parser)
    verify = add_part(
        parts, "verify", run_verify, summary="check that nothing was altered or removed"
    )
    tail = add_part(parts, "tail", run_tail, summary="show the last entries")
    for part in (verify, tail):
        part.add_argument("directory", type=Path, metavar="DIR", help="directory of --audit-log")
    verify.add_argument(
        "--head",
        metavar="HASH",
        help="a hash kept elsewhere, its beginning, or the number in appliance_audit_head; without"
        " it a cut end goes unnoticed",
    )
    tail.add_argument(
        "--lines", type=int, default=10, metavar="N", help="number of entries; default 10"
    )


def run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    if not arguments.directory.is_dir():
        raise AccessError(f"{arguments.directory} is not a directory.")
    return run_part(arguments, environ)


def run_verify(arguments: argparse.Namespace, _: Mapping[str, str]) -> int:
    from appliance.access.audit_log import head_digits, verify

    head = None if arguments.head is None else head_digits(arguments.head)
    verdict = verify(arguments.directory, head)
    for problem in verdict.problems:
        print(printable(problem))
    if verdict.problems:
        return EXIT_FOUND
    first, last = verdict.first, verdict.head.number
    print(f"{last - first + 1} entries, an unbroken chain. Its head is {verdict.head.hash}")
    if first > 1:
        print(f"It begins with entry {first}: older files were removed.")
    if head is None:
        print("Keep that hash elsewhere: --head HASH finds an end that was cut off.")
    return 0


def run_tail(arguments: argparse.Namespace, _: Mapping[str, str]) -> int:
    from appliance.access.audit_log import files_of

    lines: list[str] = []
    for path in reversed(files_of(arguments.directory)):
        found = path.read_text(encoding="utf-8", errors="replace").splitlines()
        lines = [*found[-(arguments.lines - len(lines)) :], *lines]
        if len(lines) >= arguments.lines:
            break
    for line in lines:
        print(printable(summary(line)))
    if not lines:
        print(f"{arguments.directory} holds no entries.", file=sys.stderr)
    return 0


def summary(line: str) -> str:
    try:
        entry = json.loads(line)
    except ValueError:
        return "? this is not an entry"
    if not isinstance(entry, dict) or entry.get("event") != "answer":
        event = entry.get("event") if isinstance(entry, dict) else "?"
        return f"{entry.get('at')}  {event}" if isinstance(entry, dict) else "?"
    names = ("at", "status", "who", "route", "model", "request_id")
    return "  ".join(str(entry.get(name)) for name in names)
