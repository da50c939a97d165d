"""Programs are run without a shell, within a time, and their own words are passed on."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from appliance.errors import ReleaseError
from appliance_release.programs import ProgramMissing, git_author, run_program


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_what_a_program_prints_is_returned() -> None:
    assert run_program(python("print('a b')")) == "a b\n"


def test_a_failure_has_the_programs_own_words_without_its_log() -> None:
    code = "import sys; sys.exit('E1121 06:20:23.140910 1 memcache.go:265] noise\\nrefused')"
    with pytest.raises(ReleaseError, match=r"failed and said: refused$"):
        run_program(python(code))


def test_a_program_that_says_nothing_but_log_lines_is_quoted() -> None:
    with pytest.raises(ReleaseError, match="said: E1121"):
        run_program(python("import sys; sys.exit('E1121 06:20:23.1 1 x.go:2] only this')"))


def test_a_program_that_hangs_is_ended() -> None:
    with pytest.raises(ReleaseError, match=r"took longer than 0\.2 s"):
        run_program(python("import time; time.sleep(60)"), timeout_s=0.2)


def test_a_program_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProgramMissing, match="kubectl-that-is-not-there is not installed"):
        run_program(["kubectl-that-is-not-there"])
    with pytest.raises(ReleaseError, match="cannot be run"):
        run_program([str(tmp_path)])


def test_the_author_is_who_git_would_name() -> None:
    def git(command: list[str], /, *, timeout_s: float = 60.0) -> str:
        return {"user.name": "Ada\n", "user.email": "ada@example.org\n"}[command[-1]]

    def silent(command: list[str], /, *, timeout_s: float = 60.0) -> str:
        raise ReleaseError("nothing")

    assert git_author(git) == "Ada <ada@example.org>"
    assert git_author(silent) is None
