"""`appliance pin history`: who moved which pin, when and why, and whether that was altered."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from appliance.console.ink import printable
from appliance_release.cli.pin_part import EXIT_FOUND, add_part, open_desk

if TYPE_CHECKING:
    import argparse

    from appliance.cli.parsing import Commands


def add_history(parts: Commands) -> None:
    history = add_part(parts, "history", "who changed what, when and why", run_history)
    history.add_argument("overlay", nargs="?", help="only this one")
    history.add_argument("--json", action="store_true", help="print a JSON list of entries")
    history.add_argument("--verify", action="store_true", help="check that nothing was altered")
    history.add_argument(
        "--head",
        metavar="HASH",
        help="with --verify: a hash kept elsewhere, which must be among the entries; only that "
        "shows an end that was cut off",
    )


def run_history(arguments: argparse.Namespace) -> int:
    desk = open_desk(arguments)
    entries, problems = desk.log.inspect(arguments.head)
    chosen = [each for each in entries if arguments.overlay in (None, each.target)]
    if arguments.json:
        print(json.dumps([asdict(entry) for entry in chosen], indent=2))
    elif not arguments.verify:
        for entry in chosen:
            came = f"{entry.before} -> {entry.after}" if entry.before else entry.after
            why = f"  {entry.why}" if entry.why else ""
            text = f"{entry.number:4}  {entry.at}  {entry.action:8}  {entry.target}: {came}"
            print(printable(f"{text}  by {entry.by}{why}"))
    if not arguments.verify:
        if problems:
            print(f"{printable(problems[0])} --verify shows all that is wrong.", file=sys.stderr)
        return 0
    problems += desk.changed_by_hand(entries)
    for problem in problems:
        print(printable(problem))
    if problems:
        return EXIT_FOUND
    if not arguments.json:
        head = entries[-1].hash if entries else "none"
        print(f"{len(entries)} entries, an unbroken chain. Its head is {head}")
        if arguments.head is None:
            print("Keep that hash elsewhere: with --head HASH an end that was cut off shows, too.")
    return 0
