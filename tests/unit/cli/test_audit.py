"""`appliance audit` says whether the log holds, and what it holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.access.audit_log import AuditLog, Head, files_of
from appliance.cli.main import main


@pytest.fixture
def head(tmp_path: Path) -> Head:
    log = AuditLog(tmp_path, version="1")
    log.close()
    return log.head


def test_a_log_that_holds_names_its_head(
    tmp_path: Path, head: Head, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["audit", "verify", str(tmp_path)], {}) == 0
    out = capsys.readouterr().out
    assert f"2 entries, an unbroken chain. Its head is {head.hash}" in out
    assert "Keep that hash elsewhere" in out


def test_a_head_that_was_kept_is_looked_for(
    tmp_path: Path, head: Head, capsys: pytest.CaptureFixture[str]
) -> None:
    for kept in (str(head.hash), repr(float(head.gauge))):
        assert main(["audit", "verify", str(tmp_path), "--head", kept], {}) == 0
    assert main(["audit", "verify", str(tmp_path), "--head", "0" * 64], {}) == 1
    assert "the end was cut off" in capsys.readouterr().out


def test_a_changed_log_is_found(
    tmp_path: Path, head: Head, capsys: pytest.CaptureFixture[str]
) -> None:
    (path,) = files_of(tmp_path)
    path.write_text(path.read_text().replace('"version":"1"', '"version":"2"'))
    assert main(["audit", "verify", str(tmp_path)], {}) == 1
    assert "changed after it was written" in capsys.readouterr().out


def test_the_tail_shows_the_last_entries(
    tmp_path: Path, head: Head, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["audit", "tail", str(tmp_path), "--lines", "1"], {}) == 0
    assert capsys.readouterr().out.split()[1:] == ["stop"]


def test_no_directory_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "verify", str(tmp_path / "none")], {}) == 2
    assert "is not a directory" in capsys.readouterr().err
