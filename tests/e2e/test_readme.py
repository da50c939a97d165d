"""What README and docs show is what happens: commands run, answers have the shape they print."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

REPOSITORY = Path(__file__).parents[2]
PAGES = [
    REPOSITORY / name for name in ("README.md", "docs/get-started.md", "docs/concepts/identity.md")
]
SHOWN_ADDRESS = "127.0.0.1:8000"
TIMEOUT_S = 60


def console_blocks(page: Path) -> list[tuple[str, str]]:
    """Each command of a console block and the output printed below it."""
    blocks = re.findall(r"^```console\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    pairs = []
    for block in blocks:
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            lines = part.splitlines()
            end = 1
            while is_continued("\n".join(lines[:end])):
                end += 1
            pairs.append(("\n".join(lines[:end]), "\n".join(lines[end:])))
    return pairs


def is_continued(command: str) -> bool:
    return command.endswith("\\") or command.count("'") % 2 == 1


COMMANDS = [pair for page in PAGES for pair in console_blocks(page)]
CURLS = [pair for pair in COMMANDS if pair[0].startswith("curl")]


def test_the_pages_show_requests_with_their_answers() -> None:
    assert len(CURLS) >= 5
    assert all(answer.strip() for _, answer in CURLS)


@pytest.mark.parametrize(("command", "answer"), CURLS, ids=range(len(CURLS)))
def test_a_curl_line_answers_in_the_shape_that_is_shown(
    live_url: str, command: str, answer: str
) -> None:
    found = run(command.replace(SHOWN_ADDRESS, urlsplit(live_url).netloc))
    shown_events, found_events = events(answer), events(found)
    assert [shape(event) for event in found_events] == [shape(event) for event in shown_events]


def test_the_python_example_streams_a_story(live_url: str) -> None:
    text = "".join(page.read_text() for page in PAGES)
    [code] = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    code = code.replace(SHOWN_ADDRESS, urlsplit(live_url).netloc)
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.split()) > 20


def test_the_weights_hash_can_be_checked_with_coreutils(live_url: str) -> None:
    [command] = {command for command, _ in COMMANDS if "sha256sum" in command}
    version = json.loads(run(f"curl -s {live_url}/version"))
    assert run(command).split()[0] == version["hashes"]["weights"]


def run(command: str) -> str:
    result = subprocess.run(
        ["bash", "-c", command],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def events(text: str) -> list[object]:
    """A JSON answer, or the JSON of every server-sent event."""
    if text.lstrip().startswith("data:"):
        lines = [line.removeprefix("data: ") for line in text.splitlines() if line.strip()]
        return [line if line == "[DONE]" else json.loads(line) for line in lines]
    return [json.loads(text)]


def shape(value: object) -> object:
    """Keys and types all the way down; which number or text it is may differ."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shape(item) for item in value]
    return type(value).__name__
