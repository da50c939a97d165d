"""What happens to built packages: rebuilt elsewhere, signed, copied, switched to and from."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tests.nix.local_nix import HERE, STATE, LocalNix, NixFailed

pytestmark = pytest.mark.nix

STANDIN = ("--arg", "standin", str(STATE / "standin"))
NUM_SWITCHES = 30


@pytest.fixture(scope="module")
def model(fresh_store: LocalNix) -> Path:
    return build_model(fresh_store)


def build_model(nix: LocalNix) -> Path:
    return nix.build(HERE / "packages.nix", *STANDIN, "-A", "llama-model")


def nar_hash(nix: LocalNix, path: Path) -> str:
    return nix.run("nix-store", "--query", "--hash", path)


def test_a_second_store_makes_the_same_bytes(
    fresh_store: LocalNix, second_store: LocalNix, model: Path
) -> None:
    assert build_model(second_store) == model
    assert nar_hash(second_store, model) == nar_hash(fresh_store, model)


def test_a_locked_wheel_is_the_same_file_in_any_store(
    fresh_store: LocalNix, second_store: LocalNix
) -> None:
    """Two small wheels, fetched twice."""
    expression = f"""
        let
          pkgs = import {STATE}/standin {{ }};
          lock = pkgs.lib.importJSON {HERE}/../../llama-build/wheels.lock.json;
          small = [ "h11" "idna" ];
        in pkgs.callPackage {HERE}/../../llama-build/nix/wheels.nix {{
          name = "small-wheels";
          wheels = builtins.filter (w: pkgs.lib.elem w.pname small) lock.variants.lean.x86_64-linux;
        }}
    """
    found = [store.build("-E", expression) for store in (fresh_store, second_store)]

    assert found[0] == found[1]
    assert len(list(fresh_store.real_path(found[0]).iterdir())) == 2
    assert nar_hash(fresh_store, found[0]) == nar_hash(second_store, found[0])


@pytest.fixture(scope="module")
def cache(
    fresh_store: LocalNix, model: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, str]:
    """A signed binary cache in a folder, and the public key that goes with it."""
    directory = tmp_path_factory.mktemp("cache")
    secret, public = directory / "secret-key", directory / "public-key"
    generate = ("nix-store", "--generate-binary-cache-key", "llama-1", secret, public)
    fresh_store.run(*generate)
    url = f"file://{directory}/cache"
    upload = f"{url}?compression=none&secret-key={secret}"
    fresh_store.run("nix", "copy", "--to", upload, "--from", str(fresh_store.store), model)
    return url, public.read_text(encoding="utf-8")


def pull(nix: LocalNix, url: str, key: str, path: Path) -> None:
    trust = ("--option", "trusted-public-keys", key)
    nix.run("nix-store", "--realise", path, "--option", "substituters", url, *trust)


def test_a_signed_cache_serves_who_trusts_its_key(
    fresh_store: LocalNix, second_store: LocalNix, cache: tuple[str, str], model: Path
) -> None:
    pull(second_store, *cache, model)

    assert nar_hash(second_store, model) == nar_hash(fresh_store, model)


def test_a_cache_signed_with_an_unknown_key_is_refused(
    second_store: LocalNix, cache: tuple[str, str], model: Path
) -> None:
    url, _ = cache
    stranger = "stranger-1:" + "A" * 43 + "="

    with pytest.raises(NixFailed, match="not signed by any of the keys in 'trusted-public-keys'"):
        pull(second_store, url, stranger, model)
    assert not second_store.real_path(model).exists()


def test_a_changed_byte_in_the_store_is_found(
    fresh_store: LocalNix, second_store: LocalNix, cache: tuple[str, str], model: Path
) -> None:
    pull(second_store, *cache, model)
    lock = second_store.real_path(model) / "share/models/pebble/model.lock.json"
    lock.chmod(0o644)
    lock.write_bytes(lock.read_bytes() + b" ")

    result = second_store.try_run("nix-store", "--verify-path", model)

    assert result.returncode != 0
    assert "was modified! expected hash" in result.stderr


def test_generations_switch_without_a_moment_in_between(
    fresh_store: LocalNix, tmp_path: Path
) -> None:
    """Nix profiles; Flox keeps generations as commits of its own, which this does not show."""
    packages = [fresh_store.build("-E", one_file(text)) for text in ("first", "second")]
    profile = tmp_path / "profile"
    switch = ("nix-env", "--profile", profile, "--set")
    fresh_store.run(*switch, packages[0])
    seen, stop = set[str](), threading.Event()

    def read() -> None:
        while not stop.is_set():
            generation = (tmp_path / profile.readlink()).readlink()
            seen.add(fresh_store.real_path(generation).read_text(encoding="utf-8"))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for number in range(NUM_SWITCHES):
            fresh_store.run(*switch, packages[number % 2])
        fresh_store.run("nix-env", "--profile", profile, "--rollback")
    finally:
        stop.set()
        reader.join()

    assert seen == {"first", "second"}
    assert fresh_store.real_path((tmp_path / profile.readlink()).readlink()) == (
        fresh_store.real_path(packages[0])
    )


def one_file(text: str) -> str:
    return f"""derivation {{
        name = "environment"; system = builtins.currentSystem; builder = "/bin/bash";
        args = [ "-c" "printf %s {text} > $out; exit 0" ];
    }}"""
