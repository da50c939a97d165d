"""Weights from a gated hub: fetched by hash, with a token that is stored nowhere."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from tests.fake_hub import TOKEN, FakeHub, serving
from tests.nix.gated_model import FIRST, GatedModel
from tests.nix.local_nix import COMMAND_TIMEOUT_S, REPOSITORY, STATE, LocalNix, NixFailed
from tests.nix.store_paths import build

pytestmark = pytest.mark.nix

SECOND = "2" * 40
HASH_MISMATCH = 102
SHARD_BYTES = 32_000_000
SLACK_BYTES = 4_000_000  # the store's database, the small files


@pytest.fixture
def model(hub: FakeHub, tmp_path: Path) -> GatedModel:
    return GatedModel(hub, tmp_path)


@pytest.fixture
def with_token(fresh_store: LocalNix) -> LocalNix:
    return replace(fresh_store, environment={"HF_TOKEN": TOKEN})


def test_without_a_token_a_gated_file_is_refused_and_the_log_says_what_is_missing(
    fresh_store: LocalNix, model: GatedModel
) -> None:
    with pytest.raises(NixFailed, match="HF_TOKEN is not set where this builder runs") as failure:
        model.build(fresh_store)

    assert "The requested URL returned error: 401" in str(failure.value)


def test_with_a_token_the_files_arrive_under_both_layouts(
    with_token: LocalNix, model: GatedModel
) -> None:
    output = with_token.real_path(model.build(with_token))

    share = output / "share" / "models"
    snapshot = share / "hub" / "models--demo--tiny-llama" / "snapshots" / FIRST
    for name, body in model.files.items():
        for path in (share / "tiny" / name, snapshot / name):
            assert with_token.real_path(path.readlink()).read_bytes() == body
    assert (snapshot.parents[1] / "refs" / "main").read_text(encoding="utf-8") == FIRST
    assert json.loads((share / "tiny" / "model.lock.json").read_bytes())["revision"] == FIRST


def test_the_token_is_in_no_derivation_log_store_path_or_command_line(
    with_token: LocalNix, model: GatedModel
) -> None:
    told: list[str] = []
    model.hub.on_request = lambda: told.extend(command_lines_with(TOKEN))

    model.build(with_token)

    assert {each.host for each in model.hub.requests} == {"hub", "cdn"}
    assert with_token.store is not None
    found = subprocess.run(
        ["grep", "--recursive", "--text", "--files-with-matches", TOKEN, with_token.store],
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.stdout == ""
    assert told == []


def command_lines_with(text: str) -> list[str]:
    """What any user of this machine can see of its processes right now."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # the process has ended
            found.append(path.read_text(encoding="utf-8", errors="replace"))
    return [line for line in found if text in line]


def test_the_token_goes_to_no_mirror_when_the_hub_fails(
    with_token: LocalNix, model: GatedModel, tmp_path: Path
) -> None:
    model.hub.forget()
    with serving(FakeHub(tmp_path)) as mirror:
        mirrors = {"NIX_HASHED_MIRRORS": mirror.url}
        nix = replace(with_token, environment=with_token.environment | mirrors)

        assert nix.try_run("nix-build", "-E", model.expression()).returncode != 0

    assert mirror.requests == []


def test_the_token_goes_to_no_host_that_the_hub_leads_to(
    with_token: LocalNix, model: GatedModel
) -> None:
    model.build(with_token)

    sent = {(each.host, each.authorization) for each in model.hub.requests}
    assert sent == {("hub", f"Bearer {TOKEN}"), ("cdn", None)}


def test_the_token_is_not_in_what_keep_failed_keeps(
    with_token: LocalNix, model: GatedModel, tmp_path: Path
) -> None:
    model.hub.forget()
    kept = tmp_path / "kept"
    kept.mkdir()
    nix = replace(with_token, environment=with_token.environment | {"TMPDIR": str(kept)})

    result = nix.try_run("nix-build", "--keep-failed", "-E", model.expression())

    assert "keeping build directory" in result.stderr
    files = [path for path in kept.rglob("*") if path.is_file()]
    assert "netrc" in {path.name for path in files}
    assert not [path for path in files if TOKEN.encode() in path.read_bytes()]


@pytest.mark.parametrize(
    "endpoint",
    ["http://hub.example", "http://127.0.0.1.hub.example", "http://127.0.0.1@hub.example"],
)
def test_the_token_is_not_sent_in_clear_to_another_machine(
    nix: LocalNix, model: GatedModel, endpoint: str
) -> None:
    expression = model.expression().replace(model.hub.url, endpoint)

    result = nix.try_run("nix-instantiate", "-E", expression)

    assert f"the endpoint is {endpoint}, where HF_TOKEN would be sent" in result.stderr


@pytest.mark.parametrize("endpoint", ["https://hub.example", "http://[::1]:8080/mirror"])
def test_https_and_this_machine_may_be_asked(
    nix: LocalNix, model: GatedModel, endpoint: str
) -> None:
    expression = model.expression().replace(model.hub.url, endpoint)

    assert nix.try_run("nix-instantiate", "-E", expression).returncode == 0


def test_a_repository_that_would_be_code_is_refused(nix: LocalNix, model: GatedModel) -> None:
    lock = json.loads(model.lock_file.read_bytes())
    lock["repository"] = "demo/$(id)"
    model.lock_file.write_text(json.dumps(lock), encoding="utf-8")

    result = nix.try_run("nix-instantiate", "-E", model.expression())

    assert "the repository is demo/$(id); repositories are called ORG/NAME" in result.stderr


def test_the_derivation_is_the_same_whatever_the_token(
    fresh_store: LocalNix, with_token: LocalNix, model: GatedModel
) -> None:
    expression = model.expression()

    without = fresh_store.run("nix-instantiate", "-E", expression)

    assert with_token.run("nix-instantiate", "-E", expression) == without


def test_a_connection_that_breaks_is_taken_up_where_it_broke(
    with_token: LocalNix, model: GatedModel
) -> None:
    model.hub.cut_after, model.hub.num_cuts = 1_000_000, 1

    model.build(with_token)

    ranges = [each.range for each in model.hub.requests if each.host == "cdn"]
    assert ranges == [None, "bytes=1000000-"]


def test_a_tampered_file_is_refused_by_name(with_token: LocalNix, model: GatedModel) -> None:
    changed = bytearray(model.files["model.safetensors"])
    changed[17] ^= 1
    (model.hub.root / "model.safetensors").write_bytes(changed)

    result = with_token.try_run("nix-build", "--no-out-link", "-E", model.expression())

    assert result.returncode == HASH_MISMATCH
    assert "hash mismatch in fixed-output derivation" in result.stderr
    assert "model.safetensors.drv" in result.stderr


def test_a_second_revision_costs_only_the_changed_files(
    with_token: LocalNix, model: GatedModel
) -> None:
    first = model.build(with_token)
    model.hub.requests.clear()

    model.publish(SECOND, {"config.json": b'{"changed": true}'})
    second = model.build(with_token)

    assert [path.rpartition("/")[2] for path in model.hub.paths()] == ["config.json"]
    weights = [
        with_token.real_path(each / "share/models/tiny/model.safetensors").readlink()
        for each in (first, second)
    ]
    assert weights[0] == weights[1]


def test_a_model_that_is_in_the_store_needs_neither_hub_nor_token(
    fresh_store: LocalNix, with_token: LocalNix, model: GatedModel
) -> None:
    built = model.build(with_token)
    model.hub.forget()

    assert model.build(fresh_store) == built


def test_a_prefetched_model_needs_neither_hub_nor_token_to_build(
    fresh_store: LocalNix, model: GatedModel
) -> None:
    prefetch(fresh_store, model.lock_file, "--endpoint", model.hub.url)
    model.hub.forget()

    assert weights_of(fresh_store, model.build(fresh_store)) == model.files["model.safetensors"]


def test_a_model_of_a_folder_outside_of_the_repository_is_built_from_the_store(
    fresh_store: LocalNix, model: GatedModel, tmp_path: Path
) -> None:
    lock = json.loads(model.lock_file.read_bytes())
    lock["source"] = "../../../folder"
    model.lock_file = tmp_path / "a" / "b" / "c" / "tiny.lock.json"
    model.lock_file.parent.mkdir(parents=True)
    model.lock_file.write_text(json.dumps(lock), encoding="utf-8")
    for name, body in model.files.items():
        (tmp_path / "folder").mkdir(exist_ok=True)
        (tmp_path / "folder" / name).write_bytes(body)

    prefetch(fresh_store, model.lock_file)

    assert weights_of(fresh_store, model.build(fresh_store)) == model.files["model.safetensors"]


def prefetch(nix: LocalNix, lock_file: Path, *arguments: str) -> None:
    """`appliance prefetch` into this store, unfinished downloads beside the lock."""
    store = {"NIX_REMOTE": str(nix.store), "NIX_CONF_DIR": str(STATE / "conf")}
    command = ["prefetch", str(lock_file), "--cache", f"{lock_file.parent}/cache", *arguments]
    subprocess.run(
        [sys.executable, "-m", "appliance", *command],
        env={**os.environ, **store, "HF_TOKEN": TOKEN, "PYTHONPATH": str(REPOSITORY / "server")},
        check=True,
        capture_output=True,
        timeout=COMMAND_TIMEOUT_S,
    )


def weights_of(nix: LocalNix, output: Path) -> bytes:
    link = nix.real_path(output / "share/models/tiny/model.safetensors").readlink()
    return nix.real_path(link).read_bytes()


def test_the_hub_s_own_library_finds_the_model_in_its_cache_view(nix: LocalNix) -> None:
    output = build(nix, "llama-model")
    program = (
        "from huggingface_hub import hf_hub_download, snapshot_download as find;"
        "print(find('llama-appliance/pebble'));"
        "print(hf_hub_download('llama-appliance/pebble', 'config.json'))"
    )

    found = subprocess.run(
        [sys.executable, "-c", program],
        env={
            **os.environ,
            "HF_HUB_CACHE": str(output / "share/models/hub"),
            "HF_HUB_OFFLINE": "1",
        },
        check=True,
        capture_output=True,
        text=True,
        timeout=COMMAND_TIMEOUT_S,
    ).stdout.splitlines()

    snapshots = output / "share/models/hub/models--llama-appliance--pebble/snapshots"
    lock = json.loads((output / "share/models/pebble/model.lock.json").read_bytes())
    assert found == [
        str(snapshots / lock["revision"]),
        str(snapshots / lock["revision"] / "config.json"),
    ]


def test_a_model_takes_its_own_size_on_the_disk_and_at_its_peak_one_file_more(
    with_token: LocalNix, model: GatedModel, tmp_path: Path
) -> None:
    shards = {f"model-{number}.safetensors": random.randbytes(SHARD_BYTES) for number in range(4)}
    model.publish(SECOND, shards)
    model_bytes = sum(map(len, model.files.values()))
    temporary = {"TMPDIR": str(tmp_path / "builds")}
    Path(temporary["TMPDIR"]).mkdir()
    nix = replace(with_token, environment=with_token.environment | temporary)
    before_bytes = disk_usage(nix)
    peak_bytes, done = 0, threading.Event()

    def watch() -> None:
        nonlocal peak_bytes
        while not done.wait(0.02):
            peak_bytes = max(peak_bytes, disk_usage(nix) - before_bytes)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        model.build(nix)
    finally:
        done.set()
        watcher.join()

    after_bytes = disk_usage(nix) - before_bytes
    assert after_bytes < model_bytes + SLACK_BYTES
    assert peak_bytes < model_bytes + SHARD_BYTES + SLACK_BYTES


def disk_usage(nix: LocalNix) -> int:
    """Bytes in the store and where its builds work, as `du` counts them."""
    assert nix.store is not None
    places = (nix.store, nix.environment["TMPDIR"])
    found = subprocess.run(
        ["du", "--summarize", "--block-size=1", "--total", *places],
        capture_output=True,
        text=True,
        check=False,  # files come and go while it counts
    )
    return int(found.stdout.split()[-2])
