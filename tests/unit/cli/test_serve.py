"""`appliance serve`: flags and environment to Settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.cli.main import build_parser, main
from appliance.cli.serve import GROUPS, given, server_variables
from appliance.models.options import KNOWN, Configuration, ModelOptions, load_configuration
from appliance.settings import Settings


def configuration_of(*flags: str, **environ: str) -> Configuration:
    arguments = build_parser().parse_args(["serve", *flags])
    models = arguments.model_path or ()
    return load_configuration(server_variables(environ), given(arguments), models)


def settings_of(*flags: str, **environ: str) -> Settings:
    return configuration_of(*flags, **environ).settings


def model_of(*flags: str, **environ: str) -> ModelOptions:
    [model] = configuration_of(*flags, **environ).models
    return model


def test_flags_become_settings_of_their_types() -> None:
    settings = settings_of(
        "--model", "some/dir", "--port", "0", "--queue-timeout-s", "1.5", "--allowed-hosts", "a,b"
    )
    assert settings.port == 0
    assert settings.allowed_hosts == ("a", "b")
    model = model_of("--model", "some/dir", "--queue-timeout-s", "1.5")
    assert (model.model_path, model.queue_timeout_s) == (Path("some/dir"), 1.5)


def test_the_long_name_of_model_works_too() -> None:
    assert model_of("--model-path", "d").model_path == Path("d")


def test_a_flag_wins_over_its_variable() -> None:
    assert settings_of("--port", "1", APPLIANCE_PORT="2").port == 1


def test_a_variable_sets_what_no_flag_names() -> None:
    assert model_of("--port", "1", APPLIANCE_MAX_QUEUED="7").max_queued == 7


def test_the_variables_of_the_chat_command_are_not_taken_for_settings() -> None:
    assert settings_of(APPLIANCE_CLIENT_URL="http://127.0.0.1:1").port == 8000


def test_the_groups_of_the_help_name_settings_that_exist() -> None:
    grouped = {name for names in GROUPS.values() for name in names}
    assert grouped <= set(KNOWN)


@pytest.mark.parametrize(
    ("flags", "environ", "message"),
    [
        (["--port", "x"], {}, "--port is 'x', which is not a whole number."),
        (["--port", "70000"], {}, "--port is '70000'; it must be at most 65535."),
        (["--device", "tpu"], {}, "--device is 'tpu'; it must be one of auto, cpu, cuda."),
        (["--host", ""], {}, "--host is empty."),
        (["--model", ""], {}, "--model is empty."),
        (["--threads", "0"], {}, "--threads is '0'; it must be at least 1."),
        ([], {"APPLIANCE_PORT": "x"}, "APPLIANCE_PORT is 'x', which is not a whole number."),
        ([], {"APPLIANCE_PROT": "1"}, "APPLIANCE_PROT is not a setting."),
    ],
)
def test_a_bad_value_is_one_message_and_exit_code_2(
    flags: list[str], environ: dict[str, str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", *flags], environ) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"appliance: {message}")
    assert error.count("\n") == 1
