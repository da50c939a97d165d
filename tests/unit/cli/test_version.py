"""`appliance version`: what is installed here."""

from __future__ import annotations

import json
import platform
from importlib import metadata

import pytest

from appliance import __version__
from appliance.cli.main import main
from appliance.cli.version import as_text, package_version


def test_json_can_be_read_by_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["version"] == __version__
    assert facts["python"] == platform.python_version()
    assert facts["packages"]["numpy"] == metadata.version("numpy")


def test_text_has_a_fact_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version"]) == 0
    first, *rest = capsys.readouterr().out.splitlines()
    assert first == f"Llama Appliance {__version__}"
    assert f"  python        {platform.python_version()}" in rest


def test_a_package_that_is_absent_is_said_to_be() -> None:
    assert package_version("no-such-distribution") is None
    text = as_text({"version": "1", "packages": {"torch": None}})
    assert text == "Llama Appliance 1\n\n  torch         none"
