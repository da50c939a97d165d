"""The life of the real process: refusals, readiness, SIGTERM, a second SIGTERM."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import appliance

TIMEOUT_S = 60
# 1,200 tokens, since the one that would end the answer is forbidden
WORDY = {"model": "pebble", "max_tokens": 1200, "logit_bias": {"2": -100}}
PACKAGE_ROOT = str(Path(appliance.__file__).parents[1])


def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """A start that is meant to end by itself."""
    return subprocess.run(
        [sys.executable, "-m", "appliance", "serve", *arguments],
        env={**os.environ, "PYTHONPATH": PACKAGE_ROOT, **environ},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


class Running:
    """A server that is ready."""

    def __init__(self, process: subprocess.Popen[str] | subprocess.Popen[bytes], url: str) -> None:
        self.process = process
        self.address = urlsplit(url).netloc

    def get(self, path: str) -> tuple[int, Mapping[str, object]]:
        with closing(http.client.HTTPConnection(self.address, timeout=TIMEOUT_S)) as connection:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, json.loads(response.read())

    @contextmanager
    def stream(self, max_new_tokens: int) -> Iterator[http.client.HTTPResponse]:
        body = {"prompt": "Once", "max_new_tokens": max_new_tokens, "stream": True, "seed": 1}
        headers = {"Content-Type": "application/json"}
        with closing(http.client.HTTPConnection(self.address, timeout=TIMEOUT_S)) as connection:
            connection.request("POST", "/generate", json.dumps(body), headers)
            with connection.getresponse() as response:
                yield response

    def wait(self) -> int:
        return self.process.wait(TIMEOUT_S)


SLOW_LOAD = """
import sys, time
from appliance.models import host
from appliance.cli.main import main

load_model = host.load_model

def load_slowly(*arguments):
    time.sleep(300)
    return load_model(*arguments)

host.load_model = load_slowly
sys.exit(main(["serve", "--port", "0", "--drain-delay-s", "30"]))
"""


@contextmanager
def loading() -> Iterator[subprocess.Popen[str]]:
    """A server whose load takes its time."""
    with subprocess.Popen(
        [sys.executable, "-c", SLOW_LOAD],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": PACKAGE_ROOT},
    ) as process:
        try:
            assert process.stderr is not None
            assert process.stderr.readline() == "loading pebble\n"
            yield process
        finally:
            process.kill()


@contextmanager
def started(*arguments: str) -> Iterator[Running]:
    command = [sys.executable, "-m", "appliance", "serve", "--port", "0", *arguments]
    with subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": PACKAGE_ROOT},
    ) as process:
        try:
            for line in process.stderr or ():
                if match := re.fullmatch(r"  (https?://\S+)\n", line):
                    yield Running(process, match[1])
                    return
            pytest.fail("the server ended before it was ready")
        finally:
            process.kill()


def test_a_model_that_is_not_there_ends_the_start_with_one_sentence() -> None:
    result = run("--model", "/nowhere/at/all")
    assert result.returncode == 3
    assert "/nowhere/at/all" in result.stderr
    assert "Traceback" not in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_a_setting_that_does_not_exist_is_named_with_those_that_do() -> None:
    result = run(APPLIANCE_TREADS="2")
    assert result.returncode == 2
    assert "APPLIANCE_TREADS" in result.stderr
    assert "APPLIANCE_THREADS" in result.stderr


def test_a_port_in_use_is_said_before_anything_is_loaded() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = run("--port", port)
    assert result.returncode == 1
    assert port in result.stderr
    assert "--port" in result.stderr
    assert "Traceback" not in result.stderr


def test_sigterm_lets_a_running_answer_finish_and_exits_with_zero() -> None:
    with started("--drain-timeout-s", "30") as server:
        with server.stream(max_new_tokens=400) as response:
            first = response.readline()
            server.process.send_signal(signal.SIGTERM)
            rest = response.read().decode()
        assert first.startswith(b"data: ")
        assert rest.rstrip().endswith("data: [DONE]")
        assert server.wait() == 0


def test_a_server_that_drains_serves_on_unready_for_the_delay() -> None:
    with started("--drain-delay-s", "6") as server:
        assert server.get("/health")[0] == 200
        server.process.send_signal(signal.SIGTERM)
        status, health = poll(server, "draining")
        assert (status, health["status"]) == (503, "draining")
        with server.stream(max_new_tokens=4) as response:
            assert response.status == 200
            assert response.read().decode().rstrip().endswith("[DONE]")
        assert server.wait() == 0


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what its kernel holds")
def test_a_drain_waits_for_a_client_that_reads_slowly() -> None:
    """A container's network would end with the process, and with it what the kernel holds."""
    with started() as server, socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(TIMEOUT_S)
        host, port = server.address.split(":")
        client.connect((host, int(port)))
        body = json.dumps({"prompt": "Once", "stream": True} | WORDY)
        head = f"Host: {server.address}\r\nConnection: close\r\nContent-Length: {len(body)}"
        head += "\r\nContent-Type: application/json"
        client.sendall(f"POST /v1/completions HTTP/1.1\r\n{head}\r\n\r\n{body}".encode())
        assert client.recv(1)
        server.process.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            server.process.wait(5)  # the answer takes less
        received = b"".join(iter(lambda: client.recv(65536), b""))
        assert b"data: [DONE]" in received
        assert server.wait() == 0


def test_a_second_sigterm_ends_the_process_at_once() -> None:
    with started("--drain-delay-s", "50") as server:
        server.process.send_signal(signal.SIGTERM)
        poll(server, "draining")
        server.process.send_signal(signal.SIGTERM)
        assert server.wait() == 128 + signal.SIGTERM


def test_sigterm_while_loading_ends_the_process_soon_and_well() -> None:
    with loading() as process:
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=TIMEOUT_S)  # the load takes 300
    assert process.returncode == 0
    assert [json.loads(line)["event"] for line in said.splitlines()] == ["draining"]


def test_two_signals_while_loading_end_the_process_at_once() -> None:
    with loading() as process:
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGINT)
        assert process.wait(TIMEOUT_S) in {0, 128 + signal.SIGINT, 128 + signal.SIGTERM}


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full", "0<&- 1>&- 2>&-"])
def test_a_server_that_cannot_say_anything_serves_on(redirection: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = f'exec "$0" -m appliance serve --port {port} {redirection}'
    environ = {**os.environ, "PYTHONPATH": PACKAGE_ROOT}
    with subprocess.Popen(["sh", "-c", command, sys.executable], env=environ) as process:
        try:
            server = Running(process, f"http://127.0.0.1:{port}")
            wait_until_ready(server)
            process.send_signal(signal.SIGTERM)
            assert server.wait() == 0
        finally:
            process.kill()


def test_a_server_whose_reader_leaves_serves_on() -> None:
    with started() as server:
        assert server.process.stderr is not None
        server.process.stderr.close()
        for _ in range(3):
            assert server.get("/health")[0] == 200
        server.process.send_signal(signal.SIGTERM)
        assert server.wait() == 0


def wait_until_ready(server: Running) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        with suppress(OSError):
            if server.get("/health")[0] == 200:
                return
        time.sleep(0.05)
    pytest.fail("the server did not become ready")


def poll(server: Running, wanted: str) -> tuple[int, Mapping[str, object]]:
    """The health once it says `wanted`: a signal takes a moment to arrive."""
    for _ in range(1000):
        status, health = server.get("/health")
        if health["status"] == wanted:
            return status, health
    pytest.fail(f"/health never said {wanted}")
