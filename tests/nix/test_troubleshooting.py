"""What llama-build/README.md says about errors: each is provoked, and says what is quoted there."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.fake_hub import TOKEN, FakeHub
from tests.nix.gated_model import FIRST, GatedModel
from tests.nix.local_nix import COMMAND_TIMEOUT_S, HERE, REPOSITORY, STATE, LocalNix
from tests.nix.test_flake import OVERRIDE
from tests.nix.tree import copy_tree

pytestmark = pytest.mark.nix

README = REPOSITORY / "llama-build" / "README.md"


def entries() -> dict[str, list[str]]:
    """The lines quoted under each heading of the chapter on troubleshooting."""
    _, _, chapter = README.read_text(encoding="utf-8").partition("\n## Troubleshooting\n")
    chapter = re.split(r"\n## ", chapter)[0]
    found = {}
    for section in chapter.split("\n### ")[1:]:
        title, _, body = section.partition("\n")
        quoted = re.search(r"```text\n(.*?)```", body, flags=re.DOTALL)
        assert quoted, f"nothing is quoted under {title}"
        found[title] = quoted[1].splitlines()
    return found


class Bench:
    """What it takes to provoke an error."""

    def __init__(self, nix: LocalNix, store: LocalNix, model: GatedModel, tmp_path: Path) -> None:
        self.nix = nix
        self.store = store
        self.with_token = replace(store, environment={"HF_TOKEN": TOKEN})
        self.model = model
        self.tmp_path = tmp_path

    def error_of(self, nix: LocalNix, *command: str | Path) -> str:
        result = nix.try_run(*command)
        assert result.returncode != 0
        return result.stderr

    def build_model(self, nix: LocalNix) -> str:
        return self.error_of(nix, "nix-build", "--no-out-link", "-E", self.model.expression())


def file_is_not_the_locked_one(bench: Bench) -> str:
    (bench.model.hub.root / "model.safetensors").write_bytes(b"something else")
    return bench.build_model(bench.with_token)


def token_is_missing(bench: Bench) -> str:
    return bench.build_model(bench.store)


def daemon_does_not_see_the_token(bench: Bench) -> str:
    with running_daemon(bench.tmp_path) as remote:
        result = subprocess.run(
            ["nix-build", "--no-out-link", "-E", bench.model.expression()],
            env={**os.environ, "NIX_REMOTE": remote, "HF_TOKEN": TOKEN},
            capture_output=True,
            text=True,
            check=False,
            timeout=COMMAND_TIMEOUT_S,
        )
    assert result.returncode != 0
    return result.stderr


@contextmanager
def running_daemon(directory: Path) -> Iterator[str]:
    """A Nix daemon of our own, started without the token."""
    socket = directory / "socket"
    environ = {
        **{name: value for name, value in os.environ.items() if name != "HF_TOKEN"},
        "NIX_CONF_DIR": str(STATE / "conf"),
        "NIX_REMOTE": f"local?root={directory}/daemon-store",
        "NIX_DAEMON_SOCKET_PATH": str(socket),
    }
    with subprocess.Popen(["nix-daemon"], env=environ, stderr=subprocess.DEVNULL) as daemon:
        try:
            deadline_s = time.monotonic() + COMMAND_TIMEOUT_S
            while not socket.exists():
                assert time.monotonic() < deadline_s, "the daemon does not listen"
                time.sleep(0.05)
            yield f"unix://{socket}"
        finally:
            daemon.terminate()


def disk_is_full(bench: Bench) -> str:
    small = bench.tmp_path / "small"
    small.mkdir()
    bench.model.publish(FIRST, {"model.safetensors": os.urandom(12_000_000)})
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", small], check=True)
    try:
        one_by_one = ("nix-build", "--max-jobs", "1", "--no-out-link")
        store = replace(bench.with_token, store=small)
        return bench.error_of(store, *one_by_one, "-E", bench.model.expression())
    finally:
        subprocess.run(["umount", small], check=True)


def file_is_too_large_to_publish(bench: Bench) -> str:
    lock = json.loads(bench.model.lock_file.read_bytes())
    lock["files"]["model.safetensors"]["size"] = 9_976_576_152
    bench.model.lock_file.write_text(json.dumps(lock), encoding="utf-8")
    return bench.error_of(bench.store, "nix-instantiate", "-E", bench.model.expression())


def local_file_is_not_in_the_store(bench: Bench) -> str:
    lock = json.loads(bench.model.lock_file.read_bytes())
    lock["source"] = "../../../home/someone/models/tiny"
    bench.model.lock_file.write_text(json.dumps(lock), encoding="utf-8")
    return bench.build_model(bench.store)


def local_file_has_changed(bench: Bench) -> str:
    tree = copy_tree(bench.tmp_path / "tree")
    (tree / "server/appliance/embedded/config.json").write_text("{}", encoding="utf-8")
    packages = (tree / "tests/nix/packages.nix", "--arg", "standin", STATE / "standin")
    return bench.error_of(bench.nix, "nix-instantiate", *packages, "-A", "llama-model")


def system_has_no_wheels(bench: Bench) -> str:
    expression = f"""(import {HERE}/packages.nix {{
        system = "aarch64-darwin"; standin = {STATE}/standin;
    }}).llama-server"""
    return bench.error_of(bench.nix, "nix-instantiate", "-E", expression)


def file_is_not_in_git(bench: Bench) -> str:
    tree = copy_tree(bench.tmp_path / "tree")
    git = ("git", "-C", tree)
    subprocess.run([*git, "init", "--quiet"], check=True)
    subprocess.run([*git, "add", "--all"], check=True)
    lock = "llama-build/models/pebble.lock.json"
    subprocess.run([*git, "rm", "--quiet", "--cached", lock], check=True)
    (tree / "llama-build/models/other.lock.json").write_text("{}", encoding="utf-8")
    subprocess.run([*git, "add", "llama-build/models/other.lock.json"], check=True)
    build = ("nix", "build", "--no-link", f"git+file://{tree}#llama-model")
    return bench.error_of(bench.nix, *build, *OVERRIDE)


PROVOKED: dict[str, Callable[[Bench], str]] = {
    "A file is not the one that is locked": file_is_not_the_locked_one,
    "The Hub answers 401": token_is_missing,
    "The Hub answers 401 although HF_TOKEN is set": daemon_does_not_see_the_token,
    "The disk is full": disk_is_full,
    "A file is too large to publish": file_is_too_large_to_publish,
    "A file of a local model is not in the store": local_file_is_not_in_the_store,
    "A file of a local model has changed": local_file_has_changed,
    "There are no wheels for this system": system_has_no_wheels,
    "A file that is there is said to be missing": file_is_not_in_git,
}


def test_every_entry_on_troubleshooting_is_provoked() -> None:
    assert list(entries()) == list(PROVOKED)


@pytest.mark.parametrize("title", PROVOKED)
def test_an_error_says_what_is_quoted_of_it(
    nix: LocalNix, fresh_store: LocalNix, hub: FakeHub, tmp_path: Path, title: str
) -> None:
    said = PROVOKED[title](Bench(nix, fresh_store, GatedModel(hub, tmp_path), tmp_path))

    for line in entries()[title]:
        # An ellipsis stands for what differs from case to case.
        pattern = ".*".join(map(re.escape, line.strip().split("…")))
        assert re.search(pattern, said), f"{line!r} is not in\n{said}"
