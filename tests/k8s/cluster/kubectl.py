"""kubectl with the test cluster's credentials."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import yaml

TIMEOUT_S = 360  # more than it is told to wait for anything


class KubectlFailed(Exception):
    """What kubectl said on standard error."""


class Kubectl:
    """One namespace's view; `try_` answers whether it went well, the others fail if it did not."""

    def __init__(self, kubeconfig: Path, namespace: str | None = None) -> None:
        self.kubeconfig = kubeconfig
        self.namespace = namespace

    def within(self, namespace: str) -> Kubectl:
        return Kubectl(self.kubeconfig, namespace)

    def try_(
        self, *arguments: str, stdin: str | None = None, timeout_s: float = TIMEOUT_S
    ) -> tuple[bool, str]:
        """Whether it succeeded, and what it said on both streams."""
        where = [f"--namespace={self.namespace}"] if self.namespace else []
        done = subprocess.run(
            ["kubectl", *where, *arguments],
            env={**os.environ, "KUBECONFIG": str(self.kubeconfig)},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        return done.returncode == 0, done.stdout + done.stderr

    def __call__(self, *arguments: str, stdin: str | None = None) -> str:
        is_well, said = self.try_(*arguments, stdin=stdin)
        if not is_well:
            raise KubectlFailed(f"kubectl {' '.join(arguments)}: {said.strip()}")
        return said.strip()

    def get(self, *arguments: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self("get", *arguments, "--output=json"))
        return found

    def items(self, *arguments: str) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = self.get(*arguments)["items"]
        return items

    def apply(self, objects: list[dict[str, Any]], *flags: str) -> str:
        return self("apply", "--filename=-", *flags, stdin=yaml.safe_dump_all(objects))
