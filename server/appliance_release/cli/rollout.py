"""`appliance rollout`: compares a cluster with its pin, and says why a rollout hangs."""

from __future__ import annotations

import json
import shutil
import sys
import time
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from appliance.cli.parsing import add_command, examples
from appliance.console.ink import Ink, printable, short_hash
from appliance.console.terminal import ERASE_REST, Terminal
from appliance.errors import ReleaseError
from appliance_release.cli.parts import add_directory, add_part, add_parts, run_part

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from appliance.cli.parsing import Commands
    from appliance_release.pins.record import PinRecord
    from appliance_release.rollout.kubectl import Cluster
    from appliance_release.rollout.state import PodState, Rollout, Target, Verdict

BAR_WIDTH = 24
INTERVAL_S = 1.0
MAX_FAILURES = 3  # in a row, of asking a cluster that is watched

CODES = """exit codes:
   0  every pod runs what is pinned, and the rollout is finished
   4  the cluster could not be asked
  10  drift: a Deployment or pod has another generation
  11  unpinned: a Deployment or pod has no generation
  12  tampered: other hashes than recorded, or an annotation changed later
  13  unknown: a pod does not answer, or nothing is recorded to compare with
  14  the rollout is not finished, or has failed"""


def add_parser(commands: Commands) -> None:
    parser = add_command(
        commands,
        "rollout",
        summary="whether a cluster runs what is pinned",
        description="Compare what an overlay pins with what runs in the cluster, through kubectl"
        "\nand your own credentials. Nothing is changed.",
        examples=examples(
            (
                "appliance rollout status production",
                "what pods run, and why it hangs",
            ),
            ("appliance rollout status production --watch", "until the rollout is finished"),
            ("appliance rollout verify production", "what servers report, against the record"),
            after=CODES,
        ),
    )
    parts = add_parts(parser)
    _add(parts, "status", "what pods run, and why a rollout hangs (reads objects)")
    _add(parts, "verify", "ask each server for its hashes, too (needs pods/portforward)")


def run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    return run_part(arguments, environ)


def show_all(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from appliance_release.rollout.kubectl import KEY_VARIABLE, Kubectl
    from appliance_release.rollout.state import worst
    from appliance_release.rollout.target import find_targets

    flags = ["--context", arguments.context] if arguments.context else []
    targets = find_targets(arguments.directory, arguments.overlay)
    if arguments.namespace:
        targets = [replace(target, namespace=arguments.namespace) for target in targets]
    cluster = Kubectl(flags=flags, api_key=environ.get(KEY_VARIABLE))
    terminal = Terminal(sys.stderr)
    ink = Ink.of(sys.stdout, environ)
    return worst(*(show(cluster, target, arguments, terminal, ink) for target in targets))


def show(
    cluster: Cluster,
    target: Target,
    arguments: argparse.Namespace,
    terminal: Terminal,
    ink: Ink,
) -> Verdict:
    from appliance_release.rollout.state import read_rollout, verify_pods

    if arguments.watch:
        watch(cluster, target, arguments.timeout, terminal)
    rollout = read_rollout(cluster, target)
    if arguments.part == "verify":
        rollout = verify_pods(cluster, rollout, find_record(arguments.directory, target))
    if arguments.json:
        verdict = rollout.verdict.name.lower()
        print(json.dumps(asdict(rollout) | {"verdict": verdict}, indent=2, default=str))
    else:
        print("\n".join(describe(rollout, ink, is_verified=arguments.part == "verify")))
    return rollout.verdict


def watch(cluster: Cluster, target: Target, timeout_s: float, terminal: Terminal) -> None:
    """Shows progress until the rollout is finished, has failed or `timeout_s` has passed."""
    started_s = time.monotonic()
    shown = ""
    for rollout in follow(cluster, target):
        elapsed_s = time.monotonic() - started_s
        line = progress(rollout)
        if terminal.is_interactive:
            text = f"  {bar(rollout)} {elapsed_s:.0f} s, {line}"
            terminal.write(f"\r{text[: shutil.get_terminal_size().columns - 1]}{ERASE_REST}")
        elif line != shown:
            terminal.write(f"{line}\n")
        shown = line
        if rollout.is_complete or rollout.has_failed or elapsed_s >= timeout_s:
            break
        time.sleep(INTERVAL_S)
    if terminal.is_interactive:
        terminal.write(f"\r{ERASE_REST}")


def follow(cluster: Cluster, target: Target) -> Iterator[Rollout]:
    """Yields the rollout again and again; raises when a cluster fails to answer in a row."""
    from appliance_release.rollout.state import read_rollout

    num_failures = 0
    while True:
        try:
            rollout = read_rollout(cluster, target)
        except ReleaseError:
            num_failures += 1
            if num_failures == MAX_FAILURES:
                raise
            time.sleep(INTERVAL_S)
            continue
        num_failures = 0
        yield rollout


def find_record(directory: Path, target: Target) -> PinRecord | None:
    from appliance_release.pins.record import read_record
    from appliance_release.pins.reference import parse_reference, why_not_pinned

    if why_not_pinned(target.pinned) is not None:
        return None
    return read_record(directory, parse_reference(target.pinned))


def bar(rollout: Rollout) -> str:
    done = rollout.num_available / max(1, rollout.num_wanted)
    filled = round(min(1.0, done) * BAR_WIDTH)
    return f"[{'#' * filled}{'-' * (BAR_WIDTH - filled)}]"


def progress(rollout: Rollout) -> str:
    text = f"{rollout.num_available} of {rollout.num_wanted} new pods available"
    if rollout.num_old:
        text += f", {rollout.num_old} old still there"
    waiting = [pod for pod in rollout.pods if pod.reason]
    if waiting:
        text += f"; {waiting[0].name}: {printable(str(waiting[0].reason))[:80]}"
    return text


def describe(rollout: Rollout, ink: Ink, *, is_verified: bool) -> Iterator[str]:
    target = rollout.target
    yield ink.bold(f"Deployment {target.deployment} in {target.namespace}")
    yield f"  pinned   {target.pinned}"
    yield f"  applied  {rollout.configured or 'no generation'}"
    yield f"  rollout  {state(rollout)}"
    for reason in rollout.reasons:
        yield ink.warning(f"  {printable(reason)}")
    if rollout.pods:
        yield ""
    for pod in rollout.pods:
        yield from describe_pod(pod, ink, is_verified=is_verified)
    yield ""
    yield f"  {MEANINGS[rollout.verdict.name]}"


def state(rollout: Rollout) -> str:
    if rollout.is_complete:
        return f"finished: {rollout.num_wanted} of {rollout.num_wanted} available"
    word = "failed" if rollout.has_failed else "under way"
    return f"{word}: {progress(rollout)}"


def describe_pod(pod: PodState, ink: Ink, *, is_verified: bool) -> Iterator[str]:
    ready = "ready" if pod.is_ready else pod.phase.lower()
    restarts = f", {pod.restarts} restarts" if pod.restarts else ""
    yield f"  {pod.name}  {pod.configured or 'no generation'}, {ready}{restarts}"
    if is_verified and pod.hashes is not None:
        hashes = ", ".join(f"{name} {short_hash(value)}" for name, value in pod.hashes.items())
        yield f"    reports {printable(str(pod.reported))}: {printable(hashes)}"
    for said in (pod.reason, pod.said):
        if said:
            yield ink.warning(f"    {printable(said)}")


MEANINGS = {
    "OK": "ok: what runs is what is pinned",
    "UNKNOWN": "unknown: not all of it could be compared",
    "DRIFT": "drift: something runs another generation. Apply the overlay, or change its pin.",
    "UNFINISHED": "not finished: pods of the pinned generation are not all available yet",
    "UNPINNED": "unpinned: what runs depends on when it started. Pin it and apply.",
    "TAMPERED": "tampered: what runs is not what was recorded of this generation",
}


def _add(parts: Commands, name: str, summary: str) -> None:
    parser = add_part(parts, name, show_all, summary=summary, examples=CODES)
    parser.add_argument("overlay", help="such as production")
    add_directory(parser)
    parser.add_argument("--context", metavar="NAME", help="kubectl context [default the current]")
    parser.add_argument("--namespace", metavar="NAME", help="instead of the overlay's")
    parser.add_argument("--watch", action="store_true", help="wait until the rollout has ended")
    parser.add_argument(
        "--timeout",
        type=float,
        default=900.0,
        metavar="S",
        help="seconds to watch at most [default 900]",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object a Deployment")
