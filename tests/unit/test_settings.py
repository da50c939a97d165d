"""Settings come from flags, then APPLIANCE_ variables, then familiar names; a bad one is named."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from appliance.errors import SettingsError
from appliance.models.options import (
    KNOWN,
    OPTIONS,
    SETTINGS,
    Configuration,
    ModelOptions,
    load_configuration,
)
from appliance.settings import PREFIX, Settings, parse_setting, read_variables, variable_name

SOME_TEXT = {"int": "1024", "float": "0.5", "Path": "/models/x", "str": "words", "tuple": "a,b"}


def found(environ: dict[str, str], **flags: object) -> dict[str, object]:
    """Return all values by field, of the process and of its one model."""
    configuration = load_configuration(environ, flags)
    [model] = configuration.models
    return {**vars_of(configuration.settings, SETTINGS), **vars_of(model, OPTIONS)}


def vars_of(value: object, known: Iterable[str]) -> dict[str, object]:
    return {name: getattr(value, name) for name in known}


DEFAULTS = vars_of(Settings(), SETTINGS) | vars_of(ModelOptions(), OPTIONS)


def test_without_an_environment_the_defaults_hold() -> None:
    assert load_configuration({}) == Configuration(
        settings=Settings(), models=(ModelOptions(origin="--model embedded: "),)
    )
    assert (Settings().host, Settings().port) == ("127.0.0.1", 8000)


def test_there_are_at_most_about_thirty_settings() -> None:
    assert len(SETTINGS) <= 30
    assert len(OPTIONS) <= 20


@pytest.mark.parametrize("name", KNOWN)
def test_every_setting_has_a_variable_and_a_help_text(name: str) -> None:
    spec = KNOWN[name]
    kind = re.split(r"\W", str(spec.type))[0]
    text = spec.metadata["choices"][-1] if spec.metadata["choices"] else SOME_TEXT[kind]
    expected = parse_setting("test", spec, text)
    values = read_variables({variable_name(name): text}, KNOWN, {})
    assert values[name] == expected
    assert spec.metadata["help"]


def test_every_default_is_a_value_one_could_have_set() -> None:
    for field in KNOWN.values():
        if isinstance(field.default, str | int | float):
            assert parse_setting("default", field, str(field.default)) == field.default


@pytest.mark.parametrize(
    ("variable", "name", "value"),
    [
        ("MODEL_PATH", "model_path", Path("/models/x")),
        ("HOST", "host", "0.0.0.0"),  # noqa: S104 - a value, not bound
        ("PORT", "port", 9000),
    ],
)
def test_familiar_names_are_accepted(variable: str, name: str, value: object) -> None:
    assert found({variable: str(value)})[name] == value


def test_our_variable_wins_over_the_familiar_one_and_a_flag_over_both() -> None:
    environment = {"PORT": "1", "APPLIANCE_PORT": "2"}
    assert found(environment)["port"] == 2
    assert found(environment, port=3)["port"] == 3
    assert found(environment, port=None)["port"] == 2


def test_an_empty_variable_counts_as_not_set() -> None:
    assert found({"APPLIANCE_PORT": "", "MODEL_PATH": ""}) == DEFAULTS


def test_an_unknown_variable_is_refused_and_the_known_are_listed() -> None:
    with pytest.raises(SettingsError, match="APPLIANCE_PROT is not a setting") as refusal:
        load_configuration({"APPLIANCE_PROT": "8000"})
    for name in KNOWN:
        assert PREFIX + name.upper() in refusal.value.message


def test_variables_of_others_are_ignored() -> None:
    environment = {"LLAMA_PORT": "tcp://10.0.0.1:80", "PATH": "/bin", "APPLIANCES": "toaster"}
    assert found(environment) == DEFAULTS


def test_hosts_are_split_at_commas() -> None:
    hosts = found({"APPLIANCE_ALLOWED_HOSTS": " a.example, b.example ,"})["allowed_hosts"]
    assert hosts == ("a.example", "b.example")


@pytest.mark.parametrize(
    ("variable", "text", "message"),
    [
        ("APPLIANCE_PORT", "many", r"APPLIANCE_PORT is 'many', which is not a whole number"),
        ("PORT", "tcp://10.0.0.1:80", r"^PORT is 'tcp://10\.0\.0\.1:80', which is not a whole"),
        ("APPLIANCE_PORT", "-1", r"must be at least 0"),
        ("APPLIANCE_PORT", "65536", r"must be at most 65535"),
        ("APPLIANCE_PORT", "80.5", r"not a whole number"),
        ("APPLIANCE_QUEUE_TIMEOUT_S", "soon", r"'soon', which is not a number"),
        ("APPLIANCE_QUEUE_TIMEOUT_S", "nan", r"must be at least 0"),
        ("APPLIANCE_QUEUE_TIMEOUT_S", "-0.1", r"must be at least 0"),
        ("APPLIANCE_THREADS", "0", r"must be at least 1"),
        ("APPLIANCE_ENGINE", "warp", r"one of auto, native, torch, transformers"),
        ("APPLIANCE_RUNNER", "warp", r"one of auto, native, torch, transformers"),
        ("APPLIANCE_DEVICE", "tpu", r"one of auto, cpu, cuda"),
        ("APPLIANCE_DTYPE", "int8", r"one of auto, float32, bfloat16"),
        ("APPLIANCE_QUANTIZATION", "int5", r"one of none, int8, int4"),
        ("APPLIANCE_LOG_LEVEL", "INFO", r"one of debug, info, warning, error"),
        ("APPLIANCE_MAX_BODY_BYTES", "1", r"at least 1024"),
        ("APPLIANCE_THREADS", "100000", r"at most 1024"),
        ("APPLIANCE_KV_CACHE_TOKENS", "99999999999999999999", r"at most 1000000000"),
        ("APPLIANCE_QUEUE_TIMEOUT_S", "inf", r"'inf'; it must be at most 86400"),
        ("APPLIANCE_HOST", " ", r"APPLIANCE_HOST is empty"),
    ],
)
def test_a_bad_value_is_refused_with_its_source_and_the_limit(
    variable: str, text: str, message: str
) -> None:
    with pytest.raises(SettingsError, match=message) as refusal:
        load_configuration({variable: text})
    assert variable in refusal.value.message


@pytest.mark.parametrize("name", KNOWN)
def test_an_empty_flag_is_refused_by_name(name: str) -> None:
    with pytest.raises(SettingsError, match=r"^--flag is empty"):
        parse_setting("--flag", KNOWN[name], "")


def test_every_number_has_both_bounds() -> None:
    for field in KNOWN.values():
        if str(field.type).startswith(("int", "float")):
            assert field.metadata["low"] < field.metadata["high"], field.name


def test_a_text_without_end_is_cut_where_it_is_quoted() -> None:
    with pytest.raises(SettingsError) as refusal:
        load_configuration({"APPLIANCE_PORT": "9" * 10_000})
    assert len(refusal.value.message) < 200


@pytest.mark.parametrize("name", ["APPLIANCE", "APPLIANCE_STAGING"])
def test_variables_of_a_kubernetes_service_are_no_settings(name: str) -> None:
    environment = {
        f"{name}_SERVICE_HOST": "10.0.0.1",
        f"{name}_SERVICE_PORT": "8000",
        f"{name}_SERVICE_PORT_HTTP": "8000",
        f"{name}_PORT": "tcp://10.0.0.1:8000",
        f"{name}_PORT_8000_TCP": "tcp://10.0.0.1:8000",
        f"{name}_PORT_8000_TCP_PROTO": "tcp",
        f"{name}_PORT_8000_TCP_PORT": "8000",
        f"{name}_PORT_53_UDP_ADDR": "10.0.0.1",
    }
    assert found(environment) == DEFAULTS
    assert found({**environment, "APPLIANCE_MAX_QUEUED": "7"})["max_queued"] == 7


def test_settings_cannot_be_changed() -> None:
    settings = Settings()
    with pytest.raises(FrozenInstanceError):
        settings.port = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("environment", "cache_dir"),
    [
        ({}, None),
        ({"HOME": "/home/u"}, Path("/home/u/.cache/appliance")),
        ({"HOME": "/home/u", "XDG_CACHE_HOME": "/cache"}, Path("/cache/appliance")),
        ({"HOME": "/home/u", "APPLIANCE_CACHE_DIR": "/mine"}, Path("/mine")),
    ],
)
def test_the_cache_lies_where_users_keep_caches(
    environment: dict[str, str], cache_dir: Path | None
) -> None:
    assert found(environment)["cache_dir"] == cache_dir
