"""What the terminal says once a server is ready."""

from __future__ import annotations

import io
import json
import shlex
from dataclasses import replace

import pytest

from appliance.console.banner import Running, RunningModel, banner, url_of
from appliance.console.ink import Ink

PLAIN = Ink(is_coloured=False)
EVERY_INTERFACE = "0.0.0.0"  # noqa: S104 - named, not bound
MODEL = RunningModel(
    name="embedded",
    num_parameters=7_934_000,
    weight_bytes=15_868_000,
    dtype="bfloat16",
    device="cpu",
    runner="torch",
    threads=2,
    hashes={
        "weights": "sha256:4be1d9a0c7f2e3e3",
        "tokenizer": "90b7c3215e8d",
        "template": None,
        "server": "7c5e8f3a0b61",
    },
)
RUNNING = Running(version="0.1.0", host="127.0.0.1", port=8000, models=(MODEL,), start_time_s=0.84)


def running(**changes: object) -> Running:
    """Serving one model that differs from MODEL."""
    return replace(RUNNING, models=(replace(MODEL, **changes),))  # type: ignore[arg-type]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_it_shows_what_runs_where_and_how_to_go_on() -> None:
    assert (
        banner(RUNNING, PLAIN)
        == """
  Llama Appliance 0.1.0, ready in 0.8 s

  http://127.0.0.1:8000

  model       embedded, 7.9 million parameters, 16 MB
  computing   bfloat16 on cpu, 2 threads, torch runner
  generation  none: not started from an environment
  hashes      weights   4be1d9a0c7f2    tokenizer 90b7c3215e8d
              template  none            server    7c5e8f3a0b61

  chat        open the address in a browser, or run
              appliance chat
  API         http://127.0.0.1:8000/docs
  try         paste this

curl http://127.0.0.1:8000/generate -H 'Content-Type: application/json' \\
  -d '{"prompt": "Once upon a time", "max_new_tokens": 80}'

  stop        Ctrl-C
"""
    )


def test_it_fits_80_columns_whatever_the_models_are_called() -> None:
    long = replace(
        MODEL,
        name="m" * 200,
        weight_bytes=123_400_000_000,
        max_context_tokens=10_000_000,
        wanted_context_tokens=10_485_760,
    )
    unloaded = RunningModel(name="u" * 200, note="loaded at its first use")
    text = banner(
        replace(
            RUNNING,
            models=(long, unloaded),
            generation="g" * 200,
            host=EVERY_INTERFACE,
            port=65535,
        ),
        PLAIN,
    )
    assert max(map(len, text.splitlines())) <= 80


def test_it_lists_several_models_each_with_its_hashes() -> None:
    other = replace(
        MODEL, name="big", dtype="int8", hashes={"weights": "1" * 12, "server": "2" * 12}
    )
    later = RunningModel(name="later", note="loaded at its first use")
    lines = banner(replace(RUNNING, models=(MODEL, other, later)), PLAIN).splitlines()
    assert lines[5:17] == [
        "  model       embedded, 7.9 million parameters, 16 MB",
        "  computing   bfloat16 on cpu, 2 threads, torch runner",
        "  model       big, 7.9 million parameters, 16 MB",
        "  computing   int8 weights on cpu, 2 threads, torch runner",
        "  model       later, loaded at its first use",
        "  generation  none: not started from an environment",
        "  hashes of   embedded",
        "              weights   4be1d9a0c7f2    tokenizer 90b7c3215e8d",
        "              template  none            server    7c5e8f3a0b61",
        "  hashes of   big",
        "              weights   111111111111    server    222222222222",
        "",
    ]


def test_it_says_when_a_context_was_shortened() -> None:
    text = banner(running(max_context_tokens=45_056, wanted_context_tokens=131_072), PLAIN)
    assert "  context     45,056 tokens, not 131,072: " in text


def test_it_says_how_many_bits_weights_have_and_why_a_runner_was_not_taken() -> None:
    text = banner(running(dtype="int8", note="not native: there is no C compiler"), PLAIN)
    lines = text.splitlines()
    index = lines.index("  computing   int8 weights on cpu, 2 threads, torch runner")
    assert lines[index + 1] == "              not native: there is no C compiler"


def test_its_curl_line_is_one_shell_command_with_a_json_body() -> None:
    text = banner(RUNNING, PLAIN)
    command = text[text.index("curl ") : text.index("\n\n  stop")]
    *_, body = shlex.split(command)
    assert json.loads(body)["prompt"] == "Once upon a time"


def test_another_port_is_named_to_the_chat_command() -> None:
    text = banner(replace(RUNNING, port=9000), PLAIN)
    assert "appliance chat --url http://127.0.0.1:9000" in text


def test_a_model_name_cannot_send_escape_sequences_to_the_terminal() -> None:
    assert "\x1b" not in banner(running(name="a\x1b[2Jb"), PLAIN)


def test_colour_changes_no_text() -> None:
    text = banner(RUNNING, Ink(is_coloured=True))
    for code in ("0", "1", "2", "36"):
        text = text.replace(f"\x1b[{code}m", "")
    assert text == banner(RUNNING, PLAIN)


@pytest.mark.parametrize(
    ("environ", "is_coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True)]
)
def test_no_color_is_honoured(environ: dict[str, str], *, is_coloured: bool) -> None:
    assert Ink.of(Terminal(), environ).is_coloured is is_coloured


def test_a_pipe_gets_no_colour() -> None:
    assert not Ink.of(io.StringIO(), {}).is_coloured


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000"),
        (EVERY_INTERFACE, "http://127.0.0.1:8000"),
        ("::", "http://[::1]:8000"),
        ("fe80::1", "http://[fe80::1]:8000"),
        ("llama.example", "http://llama.example:8000"),
    ],
)
def test_the_address_can_be_opened_on_this_machine(host: str, url: str) -> None:
    assert url_of(host, 8000) == url
