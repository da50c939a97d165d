"""`appliance flox check`: what it prints, and how it ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from appliance.cli.main import main

WARNED = 'version = 1\nvars.PORT = "1"\n'
REFUSED = "version = 1\nvars.PORT = 1\n"


def write(folder: Path, text: str) -> str:
    file = folder / "manifest.toml"
    file.write_text(text)
    return str(file)


def test_a_manifest_with_an_error_ends_with_one_and_names_the_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path, REFUSED)
    assert main(["flox", "check", file]) == 1
    out, err = capsys.readouterr()
    assert err.startswith(f"{file}:2: error: vars.PORT is 1;")
    assert out == "1 manifest, 1 error, 0 warnings\n"


def test_warnings_fail_only_where_that_is_asked_for(tmp_path: Path) -> None:
    file = write(tmp_path, WARNED)
    assert main(["flox", "check", file]) == 0
    assert main(["flox", "check", "--strict", file]) == 1


def test_json_is_one_object_with_all_that_is_known(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path, REFUSED)
    assert main(["flox", "check", "--json", file]) == 1
    out, err = capsys.readouterr()
    assert err == ""
    found = json.loads(out)
    assert found["manifests"] == [file]
    (finding,) = found["findings"]
    assert finding.pop("message").startswith("vars.PORT is 1;")
    assert finding == {"file": file, "line": 2, "key": "vars.PORT", "severity": "error"}


def test_a_path_with_nothing_to_check_is_a_wrong_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["flox", "check", str(tmp_path)]) == 2
    assert "holds no Flox environment" in capsys.readouterr().err


def test_flox_alone_shows_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["flox"]) == 0
    assert "appliance flox check" in capsys.readouterr().out
