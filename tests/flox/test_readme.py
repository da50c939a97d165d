"""llama-runtime/README.md says where each command runs; what runs here prints what it shows."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
README = (REPOSITORY / "llama-runtime" / "README.md").read_text(encoding="utf-8")
MANIFEST = (REPOSITORY / "llama-runtime" / ".flox" / "env" / "manifest.toml").read_text()
PLACES = {"here", "Nix", "Flox", "FloxHub"}
TIMEOUT_S = 60

BLOCKS = re.findall(r"^```console\n# (.*)\n((?:.*\n)*?)```$", README, re.MULTILINE)
# Those that end by themselves; tests/flox/test_runtime.py runs the service.
SHOWN = [
    (command, output)
    for place, text in BLOCKS
    for command, output in re.findall(r"^\$ (.*)\n((?:[^$].*\n)*)", text, re.MULTILINE)
    if place == "here" and output
]


def test_every_block_of_commands_says_where_it_runs() -> None:
    assert len(BLOCKS) == README.count("```console")
    assert {place for place, _ in BLOCKS} == PLACES


@pytest.mark.parametrize(("command", "output"), SHOWN, ids=[command for command, _ in SHOWN])
def test_a_command_that_runs_here_prints_what_is_shown(
    tmp_path: Path, command: str, output: str
) -> None:
    # As the recipe does it, without installing anything.
    script = f"{sys.executable} {REPOSITORY}/scripts/runtime.py --root {tmp_path}"
    command = re.sub(r'^make --silent runtime ARGS="(.*)"$', rf"{script} \1", command)
    command = re.sub(r"^appliance ", f"{sys.executable} -m appliance ", command)
    result = subprocess.run(
        ["bash", "-c", command],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY / "server")},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert (result.returncode, result.stdout) == (0, output)


def test_the_table_of_variables_is_what_the_manifest_sets() -> None:
    defaults = dict(re.findall(r'(\w+)="\$\{\1:-([^}"]+)\}"', MANIFEST))
    assert defaults == {
        "MODEL_PATH": "$FLOX_ENV/share/models/$LLAMA_MODEL",
        "HOST": "127.0.0.1",
        "PORT": "8000",
        "APPLIANCE_DRAIN_TIMEOUT_S": "4",
    }
    for name in defaults:
        assert f"`{name}`" in README


def test_every_file_that_is_linked_exists() -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[\w-]+)?\)", README):
        assert (REPOSITORY / "llama-runtime" / target).exists(), target
