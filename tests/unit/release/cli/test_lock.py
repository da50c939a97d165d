"""`appliance lock`: what it needs, and what it says."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.cli.main import main


def test_a_kind_of_lock_must_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["lock"])
    assert "the following arguments are required: WHAT" in capsys.readouterr().err


def test_without_uv_the_way_to_it_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["lock", "wheels"]) == 2
    assert "`make lock` installs it" in capsys.readouterr().err
