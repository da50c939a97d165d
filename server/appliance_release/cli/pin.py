"""`appliance pin`: shows which generation an overlay runs, and changes it."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from appliance.cli.parsing import add_command, examples
from appliance.console.ink import printable
from appliance_release.cli.parts import add_directory, add_part, add_parts, run_part
from appliance_release.cli.pin_history import add_history
from appliance_release.cli.pin_lint import add_lint
from appliance_release.cli.pin_record import add_record, record_state

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from appliance.cli.parsing import Commands
    from appliance_release.pins.directory import Moved, PinDirectory
    from appliance_release.pins.overlay_pin import Pin


def add_parser(commands: Commands) -> None:
    parser = add_command(
        commands,
        "pin",
        summary="which generation an overlay runs",
        description="Show, change and check which generation of the environment each overlay"
        "\nruns. A change rewrites one line of one file and adds to the history; it reaches"
        "\nthe cluster when you apply or commit it.",
        examples=examples(
            ("appliance pin show", "what each overlay runs"),
            ("appliance pin set staging 2", "roll forward"),
            ("appliance pin promote staging production", "the same generation, one overlay on"),
            ("appliance pin rollback production", "back to what was live before"),
            ("appliance pin lint k8s", "before every commit"),
            ("appliance pin history --verify", "was the history altered?"),
            after="Exit code 1: lint or --verify found something; 4: refused.",
        ),
    )
    parts = add_parts(parser)
    show = add_part(parts, "show", run_show, summary="what each overlay runs")
    show.add_argument("overlay", nargs="?", help="only this one")
    show.add_argument("--json", action="store_true", help="print one JSON object")

    change = add_part(parts, "set", run_set, summary="pin an overlay to a generation")
    change.add_argument("overlay", help="such as staging")
    change.add_argument("generation", help="a number, or OWNER/NAME:N for another environment")

    promote = add_part(
        parts, "promote", run_promote, summary="pin an overlay to what another one runs"
    )
    promote.add_argument("source", metavar="FROM", help="such as staging")
    promote.add_argument("overlay", metavar="TO", help="such as production")

    rollback = add_part(
        parts, "rollback", run_rollback, summary="pin an overlay to what it ran before"
    )
    rollback.add_argument("overlay", help="such as production")
    rollback.add_argument(
        "--to",
        default="previous",
        metavar="WHERE",
        help="previous: what was live before, which after another rollback is the newer one; "
        "lower: one generation less; or a number\n[default previous]",
    )
    record = add_record(parts)
    for each in (change, promote, rollback, record):
        each.add_argument("--why", metavar="TEXT", help="for the history")
    for each in (show, change, promote, rollback, record, add_lint(parts), add_history(parts)):
        add_directory(each)


def run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    return run_part(arguments, environ)


def run_show(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from appliance_release.pins.directory import PinDirectory
    from appliance_release.pins.overlay_pin import find_pin, find_pins
    from appliance_release.pins.record import read_record
    from appliance_release.pins.reference import parse_reference, why_not_pinned

    directory, overlay = arguments.directory, arguments.overlay
    pins = [find_pin(directory, overlay)] if overlay else find_pins(directory)
    history = PinDirectory.open(directory)
    entries = history.log.inspect()[0]
    facts = []
    for pin in pins:
        problem = why_not_pinned(pin.value)
        record = None if problem else read_record(directory, parse_reference(pin.value))
        last = next((each for each in reversed(entries) if each.target == pin.overlay), None)
        facts.append(
            {
                "overlay": pin.overlay,
                "runs": pin.value,
                "where": pin.where,
                "record": record_state(record),
                "since": None if last is None else f"{last.at} by {last.by}",
                "problem": problem,
            }
        )
    if arguments.json:
        print(json.dumps({"pins": facts}, indent=2))
    else:
        width = max(len(pin.overlay) for pin in pins)
        for fact in facts:
            _print_pin(fact, width)
        for line in history.changed_by_hand(entries):
            print(f"\n{line}", file=sys.stderr)
    return 0


def run_set(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    return _report(_open(arguments).set(arguments.overlay, arguments.generation))


def run_promote(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    return _report(_open(arguments).promote(arguments.source, arguments.overlay))


def run_rollback(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    return _report(_open(arguments).roll_back(arguments.overlay, arguments.to))


def _open(arguments: argparse.Namespace) -> PinDirectory:
    from appliance_release.pins.directory import PinDirectory

    return PinDirectory.open(arguments.directory, arguments.why)


def _report(moved: Moved) -> int:
    before, after = moved.before, moved.after
    if before.value == after.value:
        print(f"{after.overlay} is pinned to {after.value} already.")
        if moved.unrecorded is not None:
            print(f"The history had {moved.unrecorded}; now it has this change, too.")
        return 0
    print(f"{after.overlay}: {before.value} -> {after.value}   ({after.where})")
    if moved.lower is not None:
        print(f"That was live before. One generation less would be {moved.lower}: --to lower.")
    if moved.record is None:
        print("This generation has no record: see `appliance pin record --help`.")
    print(f"Then: {_apply(after)}, or commit it where GitOps does that.")
    return 0


def _apply(pin: Pin) -> str:
    is_overlay = (pin.path.parent / "kustomization.yaml").is_file()
    return f"kubectl apply -k {pin.path.parent}" if is_overlay else f"kubectl apply -f {pin.path}"


def _print_pin(fact: Mapping[str, str | None], width: int) -> None:
    print(f"{fact['overlay']:{width}}  {fact['runs']}  {fact['where']}, {fact['record']}")
    for name in ("since", "problem"):
        if fact[name]:
            text = f"since {fact[name]}" if name == "since" else f"{fact['runs']!r} {fact[name]}"
            print(printable(f"{'':{width}}  {text}"))
