"""`appliance pin history`: shows who moved which pin, and checks that nothing was altered."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from appliance.console.ink import printable
from appliance_release.cli.parts import add_part
from appliance_release.cli.pin_lint import EXIT_FOUND

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from appliance.cli.parsing import ArgumentParser, Commands


def add_history(parts: Commands) -> ArgumentParser:
    history = add_part(parts, "history", run_history, summary="who changed what, when and why")
    history.add_argument("overlay", nargs="?", help="only this one")
    history.add_argument("--json", action="store_true", help="print a JSON list of entries")
    history.add_argument("--verify", action="store_true", help="check that nothing was altered")
    history.add_argument(
        "--head",
        metavar="HASH",
        help="with --verify: a hash kept elsewhere, which must be among the entries; only that "
        "shows an end that was cut off",
    )
    return history


def run_history(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from appliance_release.pins.directory import PinDirectory

    pins = PinDirectory.open(arguments.directory)
    entries, problems = pins.log.inspect(arguments.head)
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
    problems += pins.changed_by_hand(entries)
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
