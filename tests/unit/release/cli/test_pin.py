"""`appliance pin`: what each part prints, and which exit code it ends with."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import pytest

from appliance.cli.main import main

K8S = Path(__file__).parents[4] / "k8s"
HASHES = {"weights": "a" * 64, "tokenizer": "b" * 64, "template": None, "server": "c" * 64}
REFUSED = 4


class Manifests:
    """A copy of our manifests, the command line before it, and what it printed."""

    def __init__(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.directory = directory
        self._capsys = capsys

    def pin(self, *words: str) -> tuple[int, str]:
        self._capsys.readouterr()
        code = main(["pin", words[0], "--directory", str(self.directory), *words[1:]])
        captured = self._capsys.readouterr()
        return code, captured.out + captured.err


@pytest.fixture
def k8s(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Manifests:
    shutil.copytree(K8S, tmp_path / "k8s", ignore=shutil.ignore_patterns("pins"))
    return Manifests(tmp_path / "k8s", capsys)


def test_show_lists_every_overlay(k8s: Manifests) -> None:
    code, said = k8s.pin("show")
    assert code == 0
    overlays = [line.split()[0] for line in said.splitlines()]
    assert overlays == ["canary", "production", "staging", "llama"]
    assert "acme/llama-runtime:1" in said
    assert "pin.yaml:10, not recorded" in said


def test_show_says_who_changed_it_and_what_is_wrong(k8s: Manifests) -> None:
    k8s.pin("set", "staging", "2")
    assert "since 20" in k8s.pin("show", "staging")[1]
    pin = k8s.directory / "overlays" / "staging" / "pin.yaml"
    pin.write_text(pin.read_text().replace(":2", ""))
    code, said = k8s.pin("show")
    assert code == 0
    assert "names no generation" in said
    assert "the line was edited without `appliance pin`" in said


def test_show_as_json(k8s: Manifests) -> None:
    _, said = k8s.pin("show", "staging", "--json")
    (fact,) = json.loads(said)["pins"]
    assert (fact["overlay"], fact["runs"], fact["record"]) == (
        "staging",
        "acme/llama-runtime:1",
        "not recorded",
    )


def test_forward_promoted_and_back(k8s: Manifests) -> None:
    code, said = k8s.pin("set", "staging", "2", "--why", "torch 2.14")
    assert code == 0
    assert "staging: acme/llama-runtime:1 -> acme/llama-runtime:2" in said
    assert f"kubectl apply -k {k8s.directory}/overlays/staging" in said
    assert "This generation has no record" in said
    assert (
        "production: acme/llama-runtime:1 -> acme" in k8s.pin("promote", "staging", "production")[1]
    )
    k8s.pin("set", "production", "5")
    code, said = k8s.pin("rollback", "production")
    assert code == 0
    assert "acme/llama-runtime:5 -> acme/llama-runtime:2" in said
    assert "One generation less would be acme/llama-runtime:4: --to lower." in said
    _, said = k8s.pin("history", "staging")
    assert said.count("\n") == 1
    assert "torch 2.14" in said


def test_the_plain_manifest_is_applied_by_itself(k8s: Manifests) -> None:
    assert f"kubectl apply -f {k8s.directory}/llama.yaml" in k8s.pin("set", "llama", "2")[1]


def test_nothing_is_said_to_have_changed_where_nothing_did(k8s: Manifests) -> None:
    assert k8s.pin("set", "staging", "1") == (
        0,
        "staging is pinned to acme/llama-runtime:1 already.\n",
    )


def test_a_move_that_the_history_missed_is_added_and_said(k8s: Manifests) -> None:
    k8s.pin("set", "staging", "2")
    pin = k8s.directory / "overlays" / "staging" / "pin.yaml"
    pin.write_text(pin.read_text().replace(":2", ":3"))
    code, said = k8s.pin("set", "staging", "3")
    assert code == 0
    assert "The history had acme/llama-runtime:2; now it has this change" in said
    assert k8s.pin("history", "--verify")[0] == 0


def test_a_wrong_generation_is_refused(k8s: Manifests) -> None:
    code, said = k8s.pin("set", "staging", "latest")
    assert code == REFUSED
    assert said.startswith("appliance: 'latest' is not OWNER/NAME:GENERATION")


def test_the_history_can_be_verified(k8s: Manifests) -> None:
    assert k8s.pin("history", "--verify")[1].startswith("0 entries, an unbroken chain.")
    k8s.pin("set", "staging", "2")
    code, said = k8s.pin("history", "--verify")
    assert code == 0
    head = said.splitlines()[0].rpartition(" ")[2]
    assert k8s.pin("history", "--verify", "--head", head)[0] == 0
    log = k8s.directory / "pins" / "history.jsonl"
    log.write_text("")
    code, said = k8s.pin("history", "--verify", "--head", head)
    assert code == 1
    assert "the end was cut off" in said


def test_a_history_that_was_altered_is_not_shown_as_if_it_were_whole(k8s: Manifests) -> None:
    k8s.pin("set", "staging", "2", "--why", "torch")
    log = k8s.directory / "pins" / "history.jsonl"
    log.write_text(log.read_text().replace("torch", "fun"))
    code, said = k8s.pin("history")
    assert code == 0
    assert "this entry was changed after it was written" in said


def test_the_history_as_json(k8s: Manifests) -> None:
    k8s.pin("set", "staging", "2")
    (entry,) = json.loads(k8s.pin("history", "--json")[1])
    assert (entry["number"], entry["target"]) == (1, "staging")


def test_lint_finds_nothing_in_what_we_ship(k8s: Manifests) -> None:
    assert main(["pin", "lint", str(k8s.directory / "llama.yaml")]) == 0


def test_lint_prints_findings_and_their_number(k8s: Manifests) -> None:
    path = k8s.directory / "llama.yaml"
    path.write_text(path.read_text().replace(':1"', '"'))
    code, said = k8s.pin("lint", str(path))
    assert code == 1
    assert said.startswith(f"{path}:72: Deployment/llama: spec.template.metadata.annotations")
    assert said.endswith("faults: 1\n")
    (finding,) = json.loads(k8s.pin("lint", "--json", str(path))[1].rpartition("]")[0] + "]")
    assert finding["line"] == 72


def test_a_record_is_made_of_what_is_there(k8s: Manifests, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = k8s.directory / "manifest.lock"
    store_path = "/nix/store/" + "0" * 32 + "-not-here"
    lock.write_text(json.dumps({"packages": [{"outputs": {"out": store_path}}]}))
    code, said = k8s.pin("record", "staging", "--manifest-lock", str(lock))
    assert code == 0
    assert "1.json: recorded without store paths, identity" in said
    assert f"not on this machine: no hash  {store_path}" in said
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps({"hashes": HASHES})))
    assert k8s.pin("record", "acme/llama-runtime:1", "--identity", "-")[0] == 0
    assert "recorded without store paths" in k8s.pin("show", "staging")[1]


def test_a_generation_that_was_overwritten_is_refused(k8s: Manifests) -> None:
    answer = k8s.directory / "version.json"
    answer.write_text(json.dumps({"hashes": HASHES}))
    assert k8s.pin("record", "staging", "--identity", str(answer))[0] == 0
    answer.write_text(json.dumps({"hashes": HASHES | {"weights": "d" * 64}}))
    code, said = k8s.pin("record", "staging", "--identity", str(answer))
    assert code == REFUSED
    assert "it was overwritten on the hub" in said


def test_a_record_of_nothing_and_a_missing_file_are_refused(k8s: Manifests) -> None:
    code, said = k8s.pin("record", "staging")
    assert code == REFUSED
    assert "There is nothing to record" in said
    code, said = k8s.pin("record", "staging", "--identity", "nowhere.json")
    assert code == REFUSED
    assert "nowhere.json cannot be read" in said
