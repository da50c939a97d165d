"""Weights from a gated hub: fetched by hash, with a token that is stored nowhere."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from tests.nix.fake_hub import TOKEN, GatedHub
from tests.nix.gated_model import FIRST, GatedModel
from tests.nix.local_nix import LocalNix, NixFailed

pytestmark = pytest.mark.nix

SECOND = "2" * 40
HASH_MISMATCH = 102


@pytest.fixture
def model(hub: GatedHub, tmp_path: Path) -> GatedModel:
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


def test_the_token_is_in_no_derivation_no_log_and_no_store_path(
    with_token: LocalNix, model: GatedModel
) -> None:
    model.build(with_token)

    assert all(each.is_authorised for each in model.hub.asked)
    assert with_token.store is not None
    found = subprocess.run(
        ["grep", "--recursive", "--text", "--files-with-matches", TOKEN, with_token.store],
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.stdout == ""


def test_the_derivation_is_the_same_whatever_the_token(
    fresh_store: LocalNix, with_token: LocalNix, model: GatedModel
) -> None:
    expression = model.expression()

    without = fresh_store.run("nix-instantiate", "-E", expression)

    assert with_token.run("nix-instantiate", "-E", expression) == without


def test_a_connection_that_breaks_is_taken_up_where_it_broke(
    with_token: LocalNix, model: GatedModel
) -> None:
    model.hub.cuts_after_bytes["model.safetensors"] = 1_000_000

    model.build(with_token)

    starts = [each.first_byte for each in model.hub.asked if each.name == "model.safetensors"]
    assert starts == [0, 1_000_000]


def test_a_tampered_file_is_refused_by_name(with_token: LocalNix, model: GatedModel) -> None:
    changed = bytearray(model.files["model.safetensors"])
    changed[17] ^= 1
    model.hub.revisions[FIRST]["model.safetensors"] = bytes(changed)

    result = with_token.try_run("nix-build", "--no-out-link", "-E", model.expression())

    assert result.returncode == HASH_MISMATCH
    assert "hash mismatch in fixed-output derivation" in result.stderr
    assert "model.safetensors.drv" in result.stderr


def test_a_second_revision_costs_only_the_changed_files(
    with_token: LocalNix, model: GatedModel
) -> None:
    first = model.build(with_token)
    model.hub.asked.clear()

    model.publish(SECOND, {"config.json": b'{"changed": true}'})
    second = model.build(with_token)

    assert [each.name for each in model.hub.asked] == ["config.json"]
    weights = [
        with_token.real_path(each / "share/models/tiny/model.safetensors").readlink()
        for each in (first, second)
    ]
    assert weights[0] == weights[1]


def test_a_model_that_is_in_the_store_needs_neither_hub_nor_token(
    fresh_store: LocalNix, with_token: LocalNix, model: GatedModel
) -> None:
    built = model.build(with_token)
    model.hub.revisions.clear()

    assert model.build(fresh_store) == built
