"""`appliance complete`: continues a text, streamed to standard output."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from appliance.cli.main import main
from tests.unit.cli.scripted_server import (
    Reply,
    ScriptedServer,
    event,
    json_reply,
    refused,
    stream_reply,
)

COMPLETE = "POST /v1/completions"


def words(*texts: str) -> Reply:
    chunks = [event({"choices": [{"text": text}]}) for text in texts]
    return stream_reply([*chunks, b"data: [DONE]\n\n"])


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        server.routes["GET /v1/models"] = lambda _: json_reply({"data": [{"id": "embedded"}]})
        server.routes[COMPLETE] = lambda _: words(" there", " was")
        yield server


def test_only_the_continuation_is_written(
    server: ScriptedServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["complete", "Once", "--url", server.url], {}) == 0
    assert capsys.readouterr().out == " there was"


def test_flags_and_defaults_are_sent(server: ScriptedServer) -> None:
    main(["complete", "Once", "--url", server.url, "--seed", "3", "--max-new-tokens", "5"], {})
    body = server.bodies(COMPLETE)[0]
    del body["stream_options"]
    assert body == {
        "model": "embedded",
        "prompt": "Once",
        "max_tokens": 5,
        "temperature": 0.7,
        "seed": 3,
        "stream": True,
    }


def test_a_dash_reads_standard_input(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("From a pipe\n"))
    main(["complete", "-", "--url", server.url, "--model", "m"], {})
    assert server.bodies(COMPLETE)[0]["prompt"] == "From a pipe\n"
    assert server.bodies(COMPLETE)[0]["model"] == "m"


def test_the_key_comes_from_the_variable_that_users_know(server: ScriptedServer) -> None:
    environ = {"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": f"{server.url}/v1"}
    assert main(["complete", "Once"], environ) == 0
    assert {request.headers["Authorization"] for request in server.received} == {"Bearer k"}


def test_a_refusal_goes_to_standard_error(
    server: ScriptedServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.routes[COMPLETE] = lambda _: refused(503, "The queue is full.")
    assert main(["complete", "Once", "--url", server.url], {}) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "appliance: The queue is full. (HTTP 503)\n"


def test_a_reader_that_leaves_the_pipe_ends_it_quietly(server: ScriptedServer) -> None:
    server.routes[COMPLETE] = lambda _: words(*["word "] * 1000)
    command = [sys.executable, "-m", "appliance", "complete", "x", "--url", server.url]
    read_end, write_end = os.pipe()
    os.close(read_end)
    try:
        run = subprocess.run(
            command, stdout=write_end, stderr=subprocess.PIPE, check=False, timeout=20
        )
    finally:
        os.close(write_end)
    assert run.stderr == b""
    assert run.returncode == 1
