"""`appliance pin`: which generation an overlay runs; shows, changes, checks and remembers it."""

from __future__ import annotations

import getpass
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.cli.parsing import add_command, examples
from appliance.console.ink import printable
from appliance.console.terminal import Terminal

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Mapping

    from appliance.cli.parsing import Commands
    from appliance.release.pin import Pin
    from appliance.release.pin_change import Moved, PinDesk
    from appliance.release.pin_record import PinRecord

EXIT_FOUND = 1  # lint or --verify found something


def add_parser(commands: Commands) -> None:
    parser = add_command(
        commands,
        "pin",
        summary="which generation an overlay runs",
        description="Show, change and check which generation of the environment each overlay"
        "\nruns. A change rewrites one line of one file and tells the history; it reaches"
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
    parts = parser.add_subparsers(dest="part", metavar="WHAT", title="commands", required=True)
    show = _add(parts, "show", "what each overlay runs", run_show)
    show.add_argument("overlay", nargs="?", help="only this one")
    show.add_argument("--json", action="store_true", help="print one JSON object")

    change = _add(parts, "set", "pin an overlay to a generation", run_set)
    change.add_argument("overlay", help="such as staging")
    change.add_argument("generation", help="a number, or OWNER/NAME:N for another environment")
    _add_why(change)

    promote = _add(parts, "promote", "pin an overlay to what another one runs", run_promote)
    promote.add_argument("source", metavar="FROM", help="such as staging")
    promote.add_argument("overlay", metavar="TO", help="such as production")
    _add_why(promote)

    rollback = _add(parts, "rollback", "pin an overlay to what it ran before", run_rollback)
    rollback.add_argument("overlay", help="such as production")
    rollback.add_argument(
        "--to",
        default="previous",
        metavar="WHERE",
        help="previous: what was live before, which after another rollback is the newer one; "
        "lower: one generation less; or a number\n[default previous]",
    )
    _add_why(rollback)
    _add_record(parts)

    lint = _add(parts, "lint", "check manifests", run_lint)
    lint.add_argument("paths", nargs="*", type=Path, help="files or directories [default k8s]")
    lint.add_argument("--json", action="store_true", help="print a JSON list of findings")

    history = _add(parts, "history", "who changed what, when and why", run_history)
    history.add_argument("overlay", nargs="?", help="only this one")
    history.add_argument("--json", action="store_true", help="print a JSON list of entries")
    history.add_argument("--verify", action="store_true", help="check that nothing was altered")
    history.add_argument(
        "--head",
        metavar="HASH",
        help="with --verify: a hash kept elsewhere, which must be among the entries; only that "
        "shows an end that was cut off",
    )


def run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    code: int = arguments.act(arguments)
    return code


def run_show(arguments: argparse.Namespace) -> int:
    from appliance.release.pin import find_pin, find_pins
    from appliance.release.pin_record import read_record
    from appliance.release.reference import parse_reference, why_not_pinned

    directory, overlay = arguments.directory, arguments.overlay
    pins = [find_pin(directory, overlay)] if overlay else find_pins(directory)
    desk = _desk(arguments)
    entries = desk.log.inspect()[0]
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
                "record": _record_state(record),
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
        for line in desk.changed_by_hand(entries):
            print(f"\n{line}", file=sys.stderr)
    return 0


def run_set(arguments: argparse.Namespace) -> int:
    return _told(_desk(arguments).set(arguments.overlay, arguments.generation))


def run_promote(arguments: argparse.Namespace) -> int:
    return _told(_desk(arguments).promote(arguments.source, arguments.overlay))


def run_rollback(arguments: argparse.Namespace) -> int:
    return _told(_desk(arguments).roll_back(arguments.overlay, arguments.to))


def run_record(arguments: argparse.Namespace) -> int:
    from appliance.errors import ReleaseError
    from appliance.release.pin import find_pin
    from appliance.release.pin_change import parse_pin
    from appliance.release.reference import parse_reference

    if "/" in arguments.generation:
        reference = parse_reference(arguments.generation)
    else:
        reference = parse_pin(find_pin(arguments.directory, arguments.generation))
    found = _found(arguments, str(reference))
    if not (found.manifest_lock or found.store_paths or found.identity):
        raise ReleaseError(
            "There is nothing to record. Give --manifest-lock, --store-path or --identity."
        )
    path, record = _desk(arguments).record(reference, found)
    print(f"{path}: {_record_state(record)}")
    for store_path, digest in record.store_paths.items():
        print(f"  {digest or 'not on this machine: no hash'}  {store_path}")
    return 0


def run_lint(arguments: argparse.Namespace) -> int:
    from appliance.release.manifest_lint import lint_paths

    findings, notes = lint_paths(arguments.paths or [arguments.directory])
    if arguments.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        for finding in findings:
            print(printable(str(finding)))
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    if not findings:
        return 0
    print(f"{len(findings)} to put right.", file=sys.stderr)
    return EXIT_FOUND


def run_history(arguments: argparse.Namespace) -> int:
    desk = _desk(arguments)
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


def _add(
    parts: Commands, name: str, summary: str, act: Callable[[argparse.Namespace], int]
) -> argparse.ArgumentParser:
    from appliance.cli.parsing import HelpFormatter

    parser = parts.add_parser(
        name, help=summary, description=summary, formatter_class=HelpFormatter, allow_abbrev=False
    )
    parser.set_defaults(act=act, why=None)
    parser.add_argument(
        "--directory",
        type=Path,
        default=Path("k8s"),
        metavar="DIR",
        help="where overlays/ and pins/ are [default k8s]",
    )
    return parser


def _add_why(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--why", metavar="TEXT", help="for the history")


def _add_record(parts: Commands) -> None:
    record = _add(parts, "record", "bind a generation to its hashes", run_record)
    record.add_argument(
        "generation", help="OWNER/NAME:N, or an overlay: the generation it is pinned to"
    )
    record.add_argument(
        "--manifest-lock",
        type=Path,
        metavar="FILE",
        help="the environment's .flox/env/manifest.lock; the store paths in it are hashed, too",
    )
    record.add_argument(
        "--store-path", action="append", default=[], metavar="PATH", help="a further store path"
    )
    record.add_argument(
        "--identity",
        metavar="FILE",
        help="what GET /version of a server of this generation answers; - for standard input",
    )
    _add_why(record)


def _desk(arguments: argparse.Namespace) -> PinDesk:
    from appliance.release.pin_change import PinDesk
    from appliance.release.programs import git_author, run_program

    by = git_author(run_program) or getpass.getuser()
    return PinDesk(directory=arguments.directory, by=by, why=arguments.why)


def _found(arguments: argparse.Namespace, reference: str) -> PinRecord:
    from appliance.release.pin_record import (
        PinRecord,
        hash_lock,
        hash_store_path,
        read_identity,
        read_identity_file,
    )

    digest, paths = None, set(arguments.store_path)
    if arguments.manifest_lock is not None:
        digest, locked = hash_lock(arguments.manifest_lock)
        paths |= set(locked)
    identity: dict[str, str | None] = {}
    if arguments.identity == "-":
        identity = read_identity(sys.stdin.read(), "standard input")
    elif arguments.identity is not None:
        identity = read_identity_file(Path(arguments.identity))
    store_paths = {}
    for path in sorted(paths):
        with Terminal(sys.stderr).counting(f"hashing {path}"):
            store_paths[path] = hash_store_path(path)
    return PinRecord(
        reference=reference, manifest_lock=digest, store_paths=store_paths, identity=identity
    )


def _told(moved: Moved) -> int:
    before, after = moved.before, moved.after
    if before.value == after.value:
        print(f"{after.overlay} is pinned to {after.value} already.")
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


def _record_state(record: PinRecord | None) -> str:
    if record is None:
        return "not recorded"
    return f"recorded without {', '.join(record.missing)}" if record.missing else "recorded"


def _print_pin(fact: Mapping[str, str | None], width: int) -> None:
    print(f"{fact['overlay']:{width}}  {fact['runs']}  {fact['where']}, {fact['record']}")
    for name in ("since", "problem"):
        if fact[name]:
            text = f"since {fact[name]}" if name == "since" else f"{fact['runs']!r} {fact[name]}"
            print(printable(f"{'':{width}}  {text}"))
