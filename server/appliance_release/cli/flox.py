"""`appliance flox check`: finds without Flox what Flox would refuse in an environment."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.cli.parsing import add_command, examples
from appliance_release.cli.parts import add_part, run_part

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

    from appliance.cli.parsing import Commands
    from appliance_release.flox.check import Finding

EXIT_REFUSED = 1
CHECK_SUMMARY = "check manifests, package files and names of Flox environments"


def add_parser(commands: Commands) -> None:
    parser = add_command(
        commands,
        "flox",
        summary="check Flox environments",
        description="Work on Flox environments where Flox is not installed.",
        examples=examples(
            ("appliance flox check", "all environments below this directory"),
            after="`appliance flox check --help` explains what is checked.",
        ),
    )

    def show_help(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
        parser.print_help()
        return 0

    parser.set_defaults(act=show_help)
    _add_check(parser.add_subparsers(metavar="WHAT", title="commands"))


def run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    return run_part(arguments, environ)


def _add_check(parts: Commands) -> None:
    check = add_part(
        parts,
        "check",
        run_check,
        summary=CHECK_SUMMARY,
        description="Check Flox environments as Flox would, by the schema version that each\n"
        "manifest declares: keys, types, versions, names, hooks, includes, package files.",
        examples=examples(
            ("appliance flox check llama-runtime", "one environment, and those inside of it"),
            ("appliance flox check a/manifest.toml --json", "one file, for programs"),
            after="What is legal but rarely intended is a warning.\n"
            "Exit code 0: nothing is wrong; 1: there are errors, or warnings with --strict;\n"
            "2: there is nothing to check at the path.",
        ),
    )
    check.add_argument(
        "paths",
        nargs="*",
        type=Path,
        default=[Path()],
        metavar="DIR|FILE",
        help="directory with environments, or a manifest; default: this directory",
    )
    check.add_argument("--strict", action="store_true", help="let warnings fail, too")
    check.add_argument("--json", action="store_true", help="print one JSON object")


def run_check(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from appliance_release.flox.check import check_environment, find_manifests

    manifests = sorted({file for path in arguments.paths for file in find_manifests(path)})
    findings = [finding for file in manifests for finding in check_environment(file)]
    num_errors = sum(finding.severity == "error" for finding in findings)
    if arguments.json:
        print(as_json(manifests, findings))
    else:
        for finding in findings:
            print(finding, file=sys.stderr)
        print(summary(len(manifests), num_errors, len(findings) - num_errors))
    return EXIT_REFUSED if num_errors or (arguments.strict and findings) else 0


def as_json(manifests: Sequence[Path], findings: Sequence[Finding]) -> str:
    rows = [{**asdict(finding), "file": str(finding.file)} for finding in findings]
    return json.dumps({"manifests": [str(file) for file in manifests], "findings": rows}, indent=2)


def summary(num_manifests: int, num_errors: int, num_warnings: int) -> str:
    return ", ".join(
        f"{number} {word}{'' if number == 1 else 's'}"
        for number, word in (
            (num_manifests, "manifest"),
            (num_errors, "error"),
            (num_warnings, "warning"),
        )
    )
