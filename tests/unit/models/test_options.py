"""Models are listed by flags, by a variable or by a file, each with options that an error names."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.errors import SettingsError
from appliance.models.options import ModelOptions, load_configuration


def models_of(*specs: str, **flags: object) -> tuple[ModelOptions, ...]:
    return load_configuration({}, flags, specs).models


def file_of(tmp_path: Path, text: str, **flags: object) -> tuple[ModelOptions, ...]:
    path = tmp_path / "models.toml"
    path.write_text(text)
    return load_configuration({}, {"models": path, **flags}).models


def test_without_a_model_there_is_the_embedded_one() -> None:
    [model] = models_of()
    assert (model.model_path, model.model_name) == (None, None)


@pytest.mark.parametrize(
    ("spec", "path", "name"),
    [
        ("models/x", Path("models/x"), None),
        ("embedded", None, None),
        ("small=embedded", None, "small"),
        ("org/x=/models/x", Path("org/x=/models/x"), None),  # a path may hold the sign
        ("x=/models/a=b", Path("/models/a=b"), "x"),
        ("x=/models/a,b", Path("/models/a,b"), "x"),
        ("x=/models/a,threads=2", Path("/models/a"), "x"),
        ("x=~/models/a", Path.home() / "models/a", "x"),
    ],
)
def test_a_model_is_a_directory_with_a_name_and_options(
    spec: str, path: Path | None, name: str | None
) -> None:
    [model] = models_of(spec)
    assert (model.model_path, model.model_name) == (path, name)


def test_each_model_has_its_own_options_and_flags_hold_for_all() -> None:
    first, second = models_of("a=A,quantization=int8,threads=1", "b=B", max_queued=7)
    assert (first.quantization, first.threads, first.max_queued) == ("int8", 1, 7)
    assert (second.quantization, second.threads, second.max_queued) == ("none", None, 7)


def test_one_model_may_come_from_a_variable() -> None:
    [model] = load_configuration({"MODEL_PATH": "/models/x", "APPLIANCE_MODEL_NAME": "n"}).models
    assert (model.model_path, model.model_name) == (Path("/models/x"), "n")


def test_a_file_lists_models_in_its_order(tmp_path: Path) -> None:
    text = """
    [models.small]
    path = "embedded"
    quantization = "int8"

    [models."org/big"]
    path = "big"
    threads = 3
    prefix_cache = false
    idle_unload_s = 600
    load = "first-use"
    """
    small, big = file_of(tmp_path, text, threads=1)
    assert (small.model_name, small.model_path, small.threads) == ("small", None, 1)
    assert (big.model_name, big.model_path) == ("org/big", tmp_path / "big")
    assert (big.threads, big.prefix_cache, big.idle_unload_s) == (3, "off", 600.0)
    assert (small.is_required, big.is_required) == (True, False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "lists no models"),
        ("models = 3", "lists no models"),
        (
            "[models.x]\nthread = 1",
            r"models\.toml: models\.x\.thread is not an option. Known: path",
        ),
        ("[models.x]\nthreads = 0", r"models\.x\.threads is '0'; it must be at least 1"),
        ("[models.x]\nthreads = [1]", r"models\.x\.threads must be a text or a number"),
        ("[models]\nx = 1", r"models\.x is not a table"),
        ("[models.x", "is not TOML"),
        ('[models.x]\nrequired = true\nload = "first-use"', r"models\.x\.required is on"),
    ],
)
def test_a_bad_file_is_refused_with_the_place(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        file_of(tmp_path, text)


def test_a_file_that_is_not_there_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"--models is .*gone.toml, which cannot be read"):
        load_configuration({}, {"models": tmp_path / "gone.toml"})


def test_models_stand_in_flags_or_in_a_file_and_not_in_both(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="Use one of them"):
        load_configuration({}, {"models": tmp_path / "m"}, ["embedded"])


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("", "--model is empty"),
        ("x=D,threads=0", r"--model x=D: threads is '0'; it must be at least 1"),
        ("x=D,load=later", r"load is 'later'; it must be one of start, first-use"),
        ("x=D,required=on,load=first-use", "required is on and .*load is first-use"),
    ],
)
def test_a_bad_model_flag_is_refused_by_its_own_name(spec: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        models_of(spec)
