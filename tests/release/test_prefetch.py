"""`appliance prefetch`: broken downloads go on, wrong bytes go nowhere, and the store is real."""

from __future__ import annotations

import fcntl
from collections.abc import Mapping
from pathlib import Path

import pytest

from appliance.cli.main import main
from appliance_release.locks.model_lock import read_model_lock
from appliance_release.locks.nix_store import NixStore
from appliance_release.locks.prefetch import part_name
from tests.fake_hub import REPOSITORY, REVISION, TOKEN, FakeHub

LARGE = "model-00001-of-00002.safetensors"
FOLDER = f"models/tiny-llama-{REVISION[:12]}"
ENVIRON: Mapping[str, str] = {"HF_TOKEN": TOKEN}


@pytest.fixture
def lock(hub: FakeHub, tmp_path: Path) -> Path:
    path = tmp_path / "tiny.lock.json"
    arguments = ["lock", "model", REPOSITORY, "--endpoint", hub.url, "--out", str(path)]
    assert main(arguments, ENVIRON) == 0
    hub.requests.clear()
    return path


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("appliance_release.locks.download.RETRY_DELAYS_S", (0.0, 0.0))


def prefetch(hub: FakeHub, lock: Path, *extra: str, environ: Mapping[str, str] = ENVIRON) -> int:
    cache = lock.parent / "cache"
    arguments = ["prefetch", str(lock), "--endpoint", hub.url, "--cache", str(cache), *extra]
    return main(arguments, environ)


def folder_of(lock: Path) -> Path:
    return lock.parent / "cache" / FOLDER


def part_of_large(lock: Path) -> Path:
    """Where a download of the large file goes on."""
    parts = lock.parent / "cache/models/.parts"
    parts.mkdir(parents=True, exist_ok=True)
    pin = read_model_lock(lock).files[LARGE]
    return parts / part_name(LARGE, pin)


def test_without_a_store_a_directory_to_serve_from_is_made(
    hub: FakeHub, lock: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prefetch(hub, lock, "--no-store") == 0
    folder = folder_of(lock)
    assert (folder / LARGE).read_bytes() == hub.content(LARGE)
    assert (folder / "model.lock.json").read_text() == lock.read_text()
    assert len(list(folder.iterdir())) == 9
    assert f"appliance serve --model {folder}" in capsys.readouterr().out


def test_the_token_goes_to_the_hub_and_not_to_where_it_redirects(
    hub: FakeHub, lock: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prefetch(hub, lock, "--no-store") == 0
    sent = {(request.host, request.authorization) for request in hub.requests}
    assert sent == {("hub", f"Bearer {TOKEN}"), ("cdn", None)}
    output = capsys.readouterr()
    assert TOKEN not in output.out + output.err


def test_a_connection_that_breaks_goes_on_where_it_ended(hub: FakeHub, lock: Path) -> None:
    hub.cut_after, hub.num_cuts = 1_000_000, 2
    assert prefetch(hub, lock, "--no-store") == 0
    ranges = [each.range for each in hub.requests if each.host == "cdn" and LARGE in each.path]
    assert ranges == [None, "bytes=1000000-", "bytes=2000000-"]
    assert (folder_of(lock) / LARGE).read_bytes() == hub.content(LARGE)


def test_another_run_goes_on_where_the_last_one_ended(
    hub: FakeHub, lock: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.cut_after, hub.num_cuts = 400_000, 1
    part_of_large(lock).write_bytes(hub.content(LARGE)[:700_000])
    assert prefetch(hub, lock, "--no-store") == 0
    ranges = [each.range for each in hub.requests if each.host == "cdn" and LARGE in each.path]
    assert ranges[0] == "bytes=700000-"
    assert not part_of_large(lock).exists()


def test_a_hub_that_stays_away_ends_the_run_and_keeps_what_came(
    hub: FakeHub, lock: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.cut_after, hub.num_cuts = 0, 1000
    assert prefetch(hub, lock, "--no-store") == 4
    assert "same command goes on from there" in capsys.readouterr().err


def test_an_expired_link_to_storage_is_asked_for_again(hub: FakeHub, lock: Path) -> None:
    hub.num_expired = 1
    assert prefetch(hub, lock, "--no-store") == 0


def test_what_storage_refuses_is_no_matter_of_a_licence_and_its_signature_is_not_shown(
    hub: FakeHub, lock: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.num_expired = 1000
    assert prefetch(hub, lock, "--no-store") == 4
    said = capsys.readouterr().err
    assert "answered 403, as it does when a link has expired" in said
    assert "licence" not in said
    assert "signature" not in said


def test_a_server_that_knows_no_ranges_starts_anew(hub: FakeHub, lock: Path) -> None:
    hub.cut_after, hub.num_cuts, hub.ignores_range = 1_000_000, 1, True
    assert prefetch(hub, lock, "--no-store") == 0
    assert (folder_of(lock) / LARGE).read_bytes() == hub.content(LARGE)


def test_a_changed_file_is_refused_and_never_placed(
    hub: FakeHub, lock: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.corrupt = LARGE
    assert prefetch(hub, lock, "--no-store") == 4
    assert "is not the locked file" in capsys.readouterr().err
    assert not (folder_of(lock) / LARGE).exists()
    hub.corrupt = None
    assert prefetch(hub, lock, "--no-store") == 0


def test_a_damaged_part_of_an_earlier_run_costs_a_download_no_more(
    hub: FakeHub, lock: Path
) -> None:
    part_of_large(lock).write_bytes(b"x" * 1000)
    assert prefetch(hub, lock, "--no-store") == 0
    assert (folder_of(lock) / LARGE).read_bytes() == hub.content(LARGE)


def test_a_second_run_downloads_nothing(
    hub: FakeHub, lock: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prefetch(hub, lock, "--no-store") == 0
    hub.requests.clear()
    assert prefetch(hub, lock, "--no-store") == 0
    assert hub.requests == []
    assert "everything was there already" in capsys.readouterr().out


def test_one_damaged_file_of_a_directory_is_all_that_is_fetched_again(
    hub: FakeHub, lock: Path
) -> None:
    assert prefetch(hub, lock, "--no-store") == 0
    (folder_of(lock) / "config.json").write_text("{}")
    hub.requests.clear()
    assert prefetch(hub, lock, "--no-store") == 0
    assert [path.rsplit("/", 1)[1] for path in hub.paths()] == ["config.json"]


def test_two_downloads_of_one_file_do_not_mix(
    hub: FakeHub, lock: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with part_of_large(lock).open("wb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert prefetch(hub, lock, "--no-store") == 4
    assert "Another process is downloading" in capsys.readouterr().err


def test_a_disk_that_is_too_small_is_found_before_the_download(
    hub: FakeHub,
    lock: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("appliance_release.locks.prefetch.SPARE_BYTES", 1 << 60)
    assert prefetch(hub, lock, "--no-store") == 4
    assert "--cache" in capsys.readouterr().err
    assert hub.requests == []


def test_the_refusal_of_a_gated_model_names_the_way_in(
    hub: FakeHub, lock: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prefetch(hub, lock, "--no-store", environ={}) == 4
    assert "set HF_TOKEN" in capsys.readouterr().err


def test_a_locked_folder_is_copied_and_verified(
    tmp_path: Path, hub: FakeHub, capsys: pytest.CaptureFixture[str]
) -> None:
    path, into = tmp_path / "here.lock.json", tmp_path / "made"
    (hub.root / "modeling_tiny.py").unlink()
    assert main(["lock", "model", str(hub.root), "--out", str(path)], {}) == 0
    assert main(["prefetch", str(path), "--into", str(into)], {}) == 0
    assert (into / LARGE).read_bytes() == hub.content(LARGE)
    (hub.root / LARGE).write_bytes(b"changed")
    assert main(["prefetch", str(path), "--into", str(tmp_path / "other")], {}) == 4
    assert "is not the file that was locked" in capsys.readouterr().err


def test_a_nix_that_does_not_work_is_left_out_and_named(
    hub: FakeHub,
    lock: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    program = tmp_path / "bin" / "nix-store"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho 'cannot connect to the daemon' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    assert prefetch(hub, lock) == 0
    output = capsys.readouterr()
    assert "Nix is here but does not work" in output.err
    assert "cannot connect to the daemon" in output.err
    assert "appliance serve --model" in output.out


@pytest.mark.nix
def test_the_store_gets_each_file_where_a_build_looks_for_it(
    hub: FakeHub, lock: Path, nix_store: NixStore, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.cut_after, hub.num_cuts = 1_000_000, 1
    assert prefetch(hub, lock) == 0
    assert "needs neither network nor token" in capsys.readouterr().out
    for name, pin in read_model_lock(lock).files.items():
        assert nix_store.is_valid(nix_store.fixed_path(name, pin.sha256))
    assert not folder_of(lock).exists()
    assert list((lock.parent / "cache/.parts").iterdir()) == []
    hub.requests.clear()
    assert prefetch(hub, lock) == 0
    assert hub.requests == []


@pytest.mark.nix
def test_disk_is_used_for_the_model_and_one_file_more_at_most(
    hub: FakeHub, lock: Path, nix_store: NixStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    add_file = NixStore.add_file

    def add_and_look(self: NixStore, path: Path) -> str:
        """Most is used when a copy is in the store and the download is not yet gone."""
        added = add_file(self, path)
        files = [*lock.parent.joinpath("cache").rglob("*"), *nix_store.folder().rglob("*")]
        seen.append(sum(each.stat().st_size for each in files if each.is_file()))
        return added

    monkeypatch.setattr("appliance_release.locks.prefetch.NUM_SMALL_DOWNLOADS", 1)
    monkeypatch.setattr(NixStore, "add_file", add_and_look)
    assert prefetch(hub, lock) == 0
    files = read_model_lock(lock).files
    largest = max(pin.size_bytes for pin in files.values())
    assert len(seen) == len(files)
    assert max(seen) <= read_model_lock(lock).total_bytes + largest
