"""`appliance lock model`: the lock of a repository, made without its large files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from appliance.cli.main import main
from tests.fake_hub import REPOSITORY, REVISION, TOKEN, FakeHub


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "some.lock.json"


def lock(hub: FakeHub, out: Path, *extra: str, token: str | None = TOKEN) -> int:
    environ: Mapping[str, str] = {"HF_TOKEN": token} if token else {}
    arguments = ["lock", "model", REPOSITORY, "--endpoint", hub.url, "--out", str(out), *extra]
    return main(arguments, environ)


def read(out: Path) -> dict[str, Any]:
    found = json.loads(out.read_text())
    assert isinstance(found, dict)
    return found


def test_the_lock_has_the_commit_the_licence_and_every_safe_file(hub: FakeHub, out: Path) -> None:
    assert lock(hub, out) == 0
    found = read(out)
    facts = {name: found[name] for name in ("lock", "name", "repository", "revision", "license")}
    assert facts == {
        "lock": 1,
        "name": "tiny-llama",
        "repository": REPOSITORY,
        "revision": REVISION,
        "license": "apache-2.0",
    }
    assert found["source"] is None
    assert set(found["files"]) == {
        "LICENSE.txt",
        "README.md",
        "config.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    for name, pinned in found["files"].items():
        content = hub.content(name)
        assert pinned == {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}


def test_no_large_file_is_downloaded(hub: FakeHub, out: Path) -> None:
    assert lock(hub, out) == 0
    assert hub.paths("cdn") == []
    assert not [path for path in hub.paths() if path.endswith((".safetensors", ".bin", ".py"))]


def test_a_list_of_several_pages_is_read_to_its_end(hub: FakeHub, out: Path) -> None:
    hub.page_size = 3
    assert lock(hub, out) == 0
    assert len(read(out)["files"]) == 8


def test_a_list_that_goes_on_in_a_file_of_this_machine_is_refused(
    hub: FakeHub, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.page_size, hub.next_page = 3, "file:///etc/passwd"
    assert lock(hub, out) == 4
    assert "says that its list goes on at file:///etc/passwd" in capsys.readouterr().err


def test_a_list_that_goes_on_at_another_host_is_asked_for_without_the_token(
    hub: FakeHub, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.page_size, hub.next_page = 3, f"{hub.cdn_url}/blobs/config.json"
    assert lock(hub, out) == 4
    assert "sent no list of files" in capsys.readouterr().err
    assert [each.authorization for each in hub.requests if each.host == "cdn"] == [None]


def test_a_name_with_slashes_can_be_a_revision(hub: FakeHub, out: Path) -> None:
    assert lock(hub, out, "--revision", "refs/pr/1") == 0
    assert read(out)["revision"] == REVISION


@pytest.mark.parametrize(
    ("token", "words"),
    [
        (None, ["gated, private or does not exist", "set HF_TOKEN"]),
        ("hf_wrong", ["does not know the token in HF_TOKEN"]),
        ("hf_denied", ["(403)", "Accept the licence"]),
    ],
)
def test_a_refusal_names_the_way_in(
    token: str | None,
    words: list[str],
    hub: FakeHub,
    out: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    hub.denied_tokens.add("hf_denied")
    assert lock(hub, out, token=token) == 4
    message = capsys.readouterr().err
    assert [word for word in words if word not in message] == []
    assert str(token) not in message
    assert not out.exists()


def test_an_unknown_revision_and_an_unknown_model_are_told_apart(
    hub: FakeHub, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lock(hub, out, "--revision", "v9") == 4
    assert f"{REPOSITORY} has no such revision" in capsys.readouterr().err
    wrong = ["lock", "model", "demo/absent", "--endpoint", hub.url, "--out", str(out)]
    assert main(wrong, {"HF_TOKEN": TOKEN}) == 4
    assert "There is no model demo/absent" in capsys.readouterr().err


def test_a_moved_repository_is_refused_with_its_new_name(
    hub: FakeHub, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.moved_to = "demo/renamed"
    assert lock(hub, out) == 4
    assert f"{REPOSITORY} has moved to demo/renamed" in capsys.readouterr().err


def test_a_repository_of_pickles_is_refused(
    hub: FakeHub, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in hub.root.glob("*safetensors*"):
        path.unlink()
    assert lock(hub, out) == 4
    assert "The weights are pickle files (pytorch_model.bin)" in capsys.readouterr().err


def test_a_missing_shard_is_named(
    hub: FakeHub, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (hub.root / "model-00002-of-00002.safetensors").unlink()
    assert lock(hub, out) == 4
    assert "model-00002-of-00002.safetensors" in capsys.readouterr().err


def test_a_model_that_wants_its_own_code_is_refused(
    hub: FakeHub, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (hub.root / "config.json").write_text('{"auto_map": {"AutoModel": "modeling_tiny.Tiny"}}')
    assert lock(hub, out) == 4
    assert "auto_map" in capsys.readouterr().err


def test_a_file_damaged_on_the_way_is_never_locked(
    hub: FakeHub, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.corrupt = "LICENSE.txt"
    assert lock(hub, out) == 4
    assert "LICENSE.txt arrived damaged" in capsys.readouterr().err


def test_a_redirect_within_the_hub_keeps_the_token(hub: FakeHub, out: Path) -> None:
    hub.has_resolve_cache = True
    assert lock(hub, out) == 0
    assert [path for path in hub.paths() if "resolve-cache" in path]
    assert {request.authorization for request in hub.requests} == {f"Bearer {TOKEN}"}


def test_a_mirror_may_lie_below_a_path(hub: FakeHub, out: Path) -> None:
    hub.prefix = "/mirrors/hub"
    hub.url += hub.prefix
    assert lock(hub, out) == 0
    assert all(path.startswith(hub.prefix) for path in hub.paths())


def test_what_is_no_hub_is_named(
    hub: FakeHub, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.answers_html = True
    assert lock(hub, out) == 4
    assert "is not JSON; is" in capsys.readouterr().err


@pytest.mark.parametrize("token", ["hf_a\nb", "hf_ä", "hf a", "hf_\x7f"])
def test_a_token_that_cannot_be_one_is_refused_unshown(
    token: str, hub: FakeHub, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lock(hub, out, token=token) == 2
    message = capsys.readouterr().err
    assert "HF_TOKEN contains" in message
    assert token not in message


def test_a_line_break_after_the_token_does_no_harm(hub: FakeHub, out: Path) -> None:
    assert lock(hub, out, token=f"{TOKEN}\n") == 0


def test_a_hub_that_is_busy_is_asked_again(
    hub: FakeHub, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("appliance_release.locks.hub.RETRY_DELAYS_S", (0.0, 0.0))
    hub.num_failures = 2
    assert lock(hub, out) == 0


def test_a_hub_that_is_away_is_named(
    out: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("appliance_release.locks.hub.RETRY_DELAYS_S", ())
    arguments = ["lock", "model", REPOSITORY, "--endpoint", "http://127.0.0.1:9", "--out", str(out)]
    assert main(arguments, {}) == 4
    assert "http://127.0.0.1:9 cannot be reached" in capsys.readouterr().err


def test_a_token_is_never_sent_in_the_clear(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["lock", "model", REPOSITORY, "--endpoint", "http://hub.example"]
    assert main([*arguments, "--out", str(out)], {"HF_TOKEN": TOKEN}) == 2
    assert "is not https, so others could read HF_TOKEN" in capsys.readouterr().err


def test_a_file_of_more_than_5_gb_needs_a_word(
    hub: FakeHub, out: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("appliance_release.locks.model_lock.MAX_FILE_BYTES", 1_000_000)
    assert lock(hub, out) == 4
    message = capsys.readouterr().err
    assert "model-00001-of-00002.safetensors has 3,000,000 bytes" in message
    assert "max_shard_size" in message
    assert lock(hub, out, "--allow-large-files") == 0


def test_a_licence_can_be_said_where_the_card_names_none(
    hub: FakeHub, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.card = {}
    assert lock(hub, out) == 0
    assert read(out)["license"] == "NOASSERTION"
    assert "say it with --license" in capsys.readouterr().err
    assert lock(hub, out, "--license", "mit") == 0
    assert read(out)["license"] == "mit"


def test_the_name_of_another_licence_is_taken_from_the_card(hub: FakeHub, out: Path) -> None:
    hub.card = {"license": "other", "license_name": "llama3"}
    assert lock(hub, out) == 0
    assert read(out)["license"] == "llama3"
