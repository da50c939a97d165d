"""`appliance pin lint`: finds faults in manifests before a cluster gets them."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.console.ink import printable
from appliance_release.cli.parts import add_part

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from appliance.cli.parsing import ArgumentParser, Commands

EXIT_FOUND = 1


def add_lint(parts: Commands) -> ArgumentParser:
    lint = add_part(parts, "lint", run_lint, summary="check manifests")
    lint.add_argument("paths", nargs="*", type=Path, help="files or directories [default k8s]")
    lint.add_argument("--json", action="store_true", help="print a JSON list of findings")
    return lint


def run_lint(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from appliance_release.manifests.lint import lint_paths

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
    print(f"faults: {len(findings)}", file=sys.stderr)
    return EXIT_FOUND
