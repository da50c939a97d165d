"""The commands of k8s/README.md do what it says; those that need a cluster at least exist."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from appliance.cli.main import build_parser, main
from appliance_release.rollout.state import Verdict
from tests.k8s.rendering import K8S, REPOSITORY, need_kubectl
from tests.unit.release.manifests.broken_manifests import BROKEN

README = (K8S / "README.md").read_text(encoding="utf-8")
NEEDS_MORE = {"record", "rollout"}  # a server, a lock of Flox, a cluster
VARIABLE = [
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", "WHEN"),
    (r" by .*?(?=  |$)", " by WHO"),
    (r"\b[0-9a-f]{64}\b", "HASH"),
]


def blocks(language: str) -> list[str]:
    found = re.findall(rf"^( *)```{language}\n(.*?)^\1```$", README, re.MULTILINE | re.DOTALL)
    return [
        "\n".join(line.removeprefix(indent) for line in text.split("\n")) for indent, text in found
    ]


def commands() -> Iterator[tuple[str, str]]:
    """Every command of the README with the output that follows it."""
    for block in blocks("console"):
        for command, output in re.findall(r"^[$#] (.*)\n((?:(?![$#] ).*\n)*)", block, re.MULTILINE):
            yield command.partition("  #")[0].strip(), output


def parts(command: str, program: str) -> Iterator[list[str]]:
    """The words after each call of a program in a line, which may be a pipe."""
    for part in command.split("|"):
        words = shlex.split(part)
        if words[:1] == [program]:
            yield words[1:]


def same(text: str) -> str:
    for pattern, word in VARIABLE:
        text = re.sub(pattern, word, text, flags=re.MULTILINE)
    return text


def test_the_session_prints_what_the_readme_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    need_kubectl()
    shutil.copytree(K8S, tmp_path / "k8s", ignore=shutil.ignore_patterns("pins"))
    monkeypatch.chdir(tmp_path)
    num_compared = 0
    for command, output in commands():
        for words in parts(command, "appliance"):
            if words[0] == "pin" and words[1] not in NEEDS_MORE:
                assert main(words) == 0, command
                said = capsys.readouterr().out
                if output:
                    assert same(said) == same(output), command
                    num_compared += 1
    assert num_compared >= 6


@pytest.mark.parametrize("command", sorted({command for command, _ in commands()}))
def test_a_command_has_the_flags_that_the_readme_gives_it(command: str) -> None:
    for words in parts(command, "appliance"):
        build_parser().parse_args(words)


@pytest.mark.parametrize("path", sorted(set(re.findall(r"(?<!tests/)\bk8s/[\w./-]*\w", README))))
def test_a_path_that_the_readme_names_exists(path: str) -> None:
    made = path.startswith("k8s/pins")
    assert made or (REPOSITORY / path).exists()


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`((?:\w+/)+[\w.-]+)`", README))))
def test_a_file_of_the_table_exists(name: str) -> None:
    elsewhere = name.startswith((".venv", "bin/", "flox/", "pins/", "pods/"))
    assert elsewhere or (K8S / name).exists() or (REPOSITORY / name).exists()


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)h][^)]*)\)", README))))
def test_a_link_leads_somewhere(link: str) -> None:
    file, _, anchor = link.partition("#")
    text = README if not file else ""
    if file:
        target = K8S / file
        assert target.exists()
        text = target.read_text(encoding="utf-8") if target.is_file() else ""
    if anchor:
        titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
        anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
        assert anchor in anchors


def test_every_verdict_stands_in_the_table_with_its_exit_code() -> None:
    rows = dict(re.findall(r"^\| (\d+) \| ([\w ]+) \|", README, re.MULTILINE))
    words = {"UNFINISHED": "not finished"}
    wanted = {str(int(each)): words.get(each.name, each.name.lower()) for each in Verdict}
    assert wanted.items() <= rows.items()


def test_the_number_of_broken_manifests_is_true() -> None:
    assert f"{len(BROKEN)} broken manifests are found" in README


def test_the_yaml_of_the_readme_is_yaml() -> None:
    for block in blocks("yaml"):
        assert yaml.safe_load(block)
