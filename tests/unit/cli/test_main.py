"""The command line: its help, its exit codes, and how little it imports."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import Field
from pathlib import Path
from typing import Any

import pytest

from appliance import __version__
from appliance.cli import chat, complete
from appliance.cli.client_flags import KNOWN_VARIABLES, ClientFlag
from appliance.cli.main import all_groups, main
from appliance.errors import ModelRefused, SettingsError, StartupError
from appliance.models.options import KNOWN
from appliance.settings import FAMILIAR_NAMES, variable_name

COMMANDS = [name for group in all_groups() for name in group.commands]
K8S = Path(__file__).parents[3] / "k8s" / "llama.yaml"
PEBBLE_LOCK = Path(__file__).parents[3] / "llama-build" / "models" / "pebble.lock.json"


def help_of(capsys: pytest.CaptureFixture[str], *command: str) -> str:
    with pytest.raises(SystemExit) as exit_:
        main([*command, "--help"])
    assert exit_.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("command", [[], *[[name] for name in COMMANDS]])
def test_help_has_examples_and_fits_80_columns(
    command: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = help_of(capsys, *command)
    assert "examples:\n  # " in text
    assert max(map(len, text.splitlines())) <= 80


def test_the_first_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    text = help_of(capsys)
    assert [name for name in COMMANDS if f"\n    {name} " not in text] == []


def test_the_first_help_groups_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    listed = help_of(capsys).partition("commands:\n")[2].partition("examples:")[0]
    groups = {
        lines[0].strip(): [line.split()[0] for line in lines[1:] if line.startswith("    ")]
        for lines in (group.splitlines() for group in listed.strip("\n").split("\n\n"))
    }
    assert list(groups) == [group.heading for group in all_groups()]
    assert groups["build and carry a release"] == ["lock", "prefetch", "sbom", "bundle"]
    assert groups["run a release on a cluster"] == ["flox", "pin", "rollout"]


def test_a_folder_that_cannot_be_written_is_told_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert main(["prefetch", str(PEBBLE_LOCK), "--into", str(tmp_path / "file" / "model")]) == 1
    assert capsys.readouterr().err == f"appliance: {tmp_path}/file/model: Not a directory\n"


def test_no_command_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert capsys.readouterr().out.startswith("usage: appliance ")


@pytest.mark.parametrize("field", KNOWN.values(), ids=lambda field: field.name)
def test_every_setting_has_a_flag_and_shows_its_variable_and_default(
    field: Field[Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    name, default = field.name, field.default
    text = help_of(capsys, "serve")
    assert re.search(rf"--{name.replace('_', '-')}[ ,]", text)
    line = next(line for line in text.splitlines() if f"[{variable_name(name)}" in line)
    if default not in (None, ()):
        shown = f"{default:g}" if isinstance(default, float) else default
        assert line.endswith(f"; default {shown}]")


def test_familiar_variables_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    text = help_of(capsys, "serve")
    assert [name for name in FAMILIAR_NAMES if f", {name}" not in text] == []


@pytest.mark.parametrize(("command", "flags"), [("chat", chat.FLAGS), ("complete", complete.FLAGS)])
def test_every_client_flag_shows_its_variable(
    command: str, flags: tuple[ClientFlag, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    text = help_of(capsys, command)
    assert {flag.variable for flag in flags} <= KNOWN_VARIABLES
    missing = [flag.name for flag in flags if flag.flag not in text or flag.variable not in text]
    assert missing == []


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["fly"], "invalid choice: 'fly'"),
        (["serve", "--por", "1"], "unrecognized arguments: --por 1"),
        (["complete"], "the following arguments are required: PROMPT"),
    ],
)
def test_a_wrong_command_line_names_the_mistake_and_the_help(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(argv)
    assert exit_.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.splitlines()[-1].startswith("Try `appliance")


@pytest.mark.parametrize(
    ("error", "code"), [(SettingsError("s"), 2), (ModelRefused("m"), 3), (StartupError("e"), 1)]
)
def test_each_kind_of_refusal_has_its_exit_code(error: StartupError, code: int) -> None:
    assert error.exit_code == code


def test_help_imports_nothing_slow() -> None:
    program = (
        "import sys; from appliance.cli.main import build_parser; build_parser().format_help()"
    )
    program += "; print(*sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    slow = {"torch", "transformers", "fastapi", "pydantic", "numpy", "http.client", "asyncio"}
    assert slow.isdisjoint(run.stdout.split())


@pytest.mark.parametrize(
    ("command", "library", "package"),
    [
        (["serve"], "uvicorn", "llama-server"),
        (["pin", "lint", str(K8S)], "yaml", "llama-release"),
    ],
)
def test_a_command_whose_library_is_missing_names_the_package_that_has_it(
    command: list[str], library: str, package: str
) -> None:
    program = (
        f"import sys; sys.modules[{library!r}] = None; from appliance.cli.main import main;"
        f" sys.exit(main({command}))"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert run.returncode == 1
    assert f"`appliance {command[0]}` needs the Python package {library}" in run.stderr
    assert f"Use the Nix package {package}" in run.stderr


def test_the_release_runs_as_a_module_where_no_package_lists_its_commands() -> None:
    command = [sys.executable, "-m", "appliance_release", "pin", "lint", str(K8S)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")


def test_the_module_runs_as_a_program() -> None:
    command = [sys.executable, "-m", "appliance", "--version"]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stdout == f"Llama Appliance {__version__}\n"
