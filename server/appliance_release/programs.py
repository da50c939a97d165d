"""Runs kubectl and git without a shell and within a time limit; errors quote their output."""

from __future__ import annotations

import re
import subprocess
from typing import Protocol

from appliance.errors import ReleaseError

MAX_SHOWN_CHARS = 600
_LOG_LINE = re.compile(r"[IWEF]\d{4} \d\d:")


class ProgramMissing(ReleaseError):
    """The program is not installed."""


class Run(Protocol):
    """Runs a command and returns what it printed; a ReleaseError if it failed."""

    def __call__(self, command: list[str], /, *, timeout_s: float = 60.0) -> str: ...


def run_program(command: list[str], /, *, timeout_s: float = 60.0) -> str:
    name = command[0]
    try:
        done = subprocess.run(  # noqa: S603 - a list of arguments, none of which is code
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
    except FileNotFoundError:
        raise ProgramMissing(f"{name} is not installed, or not on the PATH.") from None
    except OSError as error:
        raise ReleaseError(f"{name} cannot be run: {error.strerror}.") from None
    except subprocess.TimeoutExpired:
        raise ReleaseError(f"{' '.join(command)} took longer than {timeout_s:g} s.") from None
    if done.returncode != 0:
        raise ReleaseError(f"{' '.join(command)} failed and said: {_said(done.stderr)}")
    return done.stdout


def _said(errors: str) -> str:
    """Removes the log lines that kubectl puts before its message."""
    lines = [line for line in errors.strip().splitlines() if not _LOG_LINE.match(line)]
    return ("\n".join(lines) or errors.strip() or "nothing")[:MAX_SHOWN_CHARS]


def git_author(run: Run) -> str | None:
    """Returns the author that git would use; None if none is configured."""
    try:
        name, email = (
            run(["git", "config", "--get", f"user.{key}"], timeout_s=10).strip()
            for key in ("name", "email")
        )
    except ReleaseError:
        return None
    return f"{name} <{email}>"
