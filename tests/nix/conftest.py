"""Fixtures of the tests on real Nix: they skip where it is not installed, and fail so in CI."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fake_hub import FakeHub, serving
from tests.nix import local_nix
from tests.nix.local_nix import LocalNix


@pytest.fixture(scope="session")
def nix() -> LocalNix:
    """Nix over /nix/store, which keeps what earlier runs built."""
    if lacking := local_nix.missing():
        reason = f"these tests need {', '.join(lacking)}"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return local_nix.prepare()


@pytest.fixture(scope="session")
def fresh_store(nix: LocalNix, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalNix]:
    """A store of its own with nothing in it, gone after the tests."""
    yield from _store(tmp_path_factory.mktemp("store"))


@pytest.fixture
def second_store(nix: LocalNix, tmp_path: Path) -> Iterator[LocalNix]:
    yield from _store(tmp_path / "second-store")


def _store(directory: Path) -> Iterator[LocalNix]:
    yield LocalNix(store=directory)
    subprocess.run(["chmod", "-R", "u+w", directory], check=False)  # store paths are read-only
    subprocess.run(["rm", "-rf", directory], check=True)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[FakeHub]:
    root = tmp_path / "repository"
    root.mkdir()
    with serving(FakeHub(root)) as hub:
        yield hub
