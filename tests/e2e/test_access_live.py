"""Keys, limits, TLS and the audit log of a real server process with the embedded model."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import ssl
import threading
import time
from contextlib import closing
from pathlib import Path
from urllib.request import urlopen

import httpx2
import pytest

from appliance.access.audit_log import files_of, verify
from appliance.access.grant import EVERYTHING, read_grant
from appliance.access.key_file import KeyFile
from tests.e2e.test_process import Running, run, started
from tests.unit.access.test_token_review import write_certificate

WAIT_S = 20
QUIET = ("--log-level", "warning")


def ask(server: Running, key: str, max_tokens: int = 24, prompt: str = "Once") -> tuple[int, int]:
    """The status and the tokens of one answer."""
    with closing(http.client.HTTPConnection(server.address, timeout=60)) as connection:
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
        body = {"prompt": prompt, "max_new_tokens": max_tokens, "temperature": 0.9}
        connection.request("POST", "/generate", json.dumps(body), headers)
        response = connection.getresponse()
        answer = json.loads(response.read())
        return response.status, answer.get("usage", {}).get("total_tokens", 0)


def test_a_key_that_is_made_or_revoked_counts_within_two_seconds(tmp_path: Path) -> None:
    file = KeyFile(tmp_path / "keys.json")
    first, _ = file.add("first", expires=None, grant=EVERYTHING)
    with started("--keys", str(file.path), *QUIET) as server:
        assert ask(server, first)[0] == 200
        second, _ = file.add("second", expires=None, grant=EVERYTHING)
        assert became(server, second, 200)
        file.revoke("first")
        assert became(server, first, 401)
        assert server.get("/health")[0] == 200
        assert server.get("/version")[0] == 401


def became(server: Running, key: str, status: int) -> bool:
    deadline = time.monotonic() + WAIT_S
    while ask(server, key)[0] != status:
        if time.monotonic() > deadline:
            return False
    return True


def test_a_running_stream_of_a_revoked_key_ends_with_an_error(tmp_path: Path) -> None:
    file = KeyFile(tmp_path / "keys.json")
    key, _ = file.add("ada", expires=None, grant=EVERYTHING)
    with (
        started("--keys", str(file.path), *QUIET) as server,
        closing(http.client.HTTPConnection(server.address, timeout=60)) as connection,
    ):
        body = {
            "model": "pebble", "prompt": "Once", "max_tokens": 1200, "stream": True,
            "logit_bias": {"2": -100}, "n": 8,
        }  # fmt: skip
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
        connection.request("POST", "/v1/completions", json.dumps(body), headers)
        response = connection.getresponse()
        assert response.readline().startswith(b"data: ")
        file.revoke("ada")
        rest = response.read().decode()
    last = [line for line in rest.splitlines() if line][-1]
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "invalid_api_key"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--keys", "/nowhere/keys.json"), "appliance key new NAME --keys"),
        (("--jwt", "/nowhere/jwt.json"), "cannot be read"),
        (("--tls-key", "/nowhere/key.pem"), "--tls-key needs --tls-certificate"),
        (("--tls-certificate", "/nowhere/cert.pem"), "cannot be used"),
        (("--audit-log", "/dev/null/audit"), "cannot be used"),
    ],
)
def test_a_start_is_refused_with_one_line(arguments: tuple[str, ...], said: str) -> None:
    result = run("--port", "0", *arguments)
    assert result.returncode == 2
    assert said in result.stderr
    assert "Traceback" not in result.stderr


def serial(address: str) -> str:
    """Of the certificate that the server shows."""
    host, _, port = address.partition(":")
    return ssl.get_server_certificate((host, int(port)), timeout=WAIT_S)


def test_tls_serves_a_new_certificate_without_a_restart(tmp_path: Path) -> None:
    write_certificate(tmp_path)
    certificate, key = tmp_path / "ca.crt", tmp_path / "tls.key"
    with started("--tls-certificate", str(certificate), "--tls-key", str(key), *QUIET) as server:
        context = ssl.create_default_context(cafile=str(certificate))
        url = f"https://{server.address}/health"
        assert httpx2.get(url, verify=context).json()["status"] == "ok"
        before = serial(server.address)
        certificate.write_text("broken")
        time_of_break = time.monotonic()
        write_certificate(tmp_path)
        while serial(server.address) == before:
            assert time.monotonic() < time_of_break + WAIT_S
        context = ssl.create_default_context(cafile=str(certificate))
        assert httpx2.get(url, verify=context).status_code == 200


def test_metrics_have_a_port_of_their_own_and_the_log_a_head(tmp_path: Path) -> None:
    file = KeyFile(tmp_path / "keys.json")
    key, _ = file.add("ada", expires=None, grant=EVERYTHING)
    port = free_port()
    arguments = ("--keys", str(file.path), "--metrics-port", str(port), *QUIET)
    with started(*arguments, "--audit-log", str(tmp_path / "audit")) as server:
        assert ask(server, key)[0] == 200
        assert server.get("/metrics")[0] == 401
        metrics = read_metrics(port)
        assert metrics["appliance_audit_lost_entries"] == 0
        process = server.process
        process.send_signal(signal.SIGTERM)
        assert server.wait() == 0
    verdict = verify(tmp_path / "audit")
    assert (verdict.problems, verdict.head.number) == ([], 3)
    [path] = files_of(tmp_path / "audit")
    lines = path.read_text().splitlines()
    answer = json.loads(lines[1])
    assert (answer["who"], answer["model"], answer["status"]) == ("key:ada", "pebble", 200)
    assert "Once" not in path.read_text()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def read_metrics(port: int) -> dict[str, float]:
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=WAIT_S) as response:
        lines = response.read().decode().splitlines()
    pairs = [line.rpartition(" ") for line in lines if not line.startswith("#")]
    return {name: float(value) for name, _, value in pairs}


class Asker(threading.Thread):
    """Asks with one key, again and again, until a time."""

    def __init__(self, server: Running, key: str, until: float) -> None:
        super().__init__(daemon=True)
        self.server, self.key, self.until = server, key, until
        self.num_tokens = 0

    def run(self) -> None:
        while time.monotonic() < self.until:
            status, num_tokens = ask(self.server, self.key, max_tokens=120)
            if status == 200 and time.monotonic() < self.until:
                self.num_tokens += num_tokens


@pytest.mark.parametrize(
    "seconds", [10, pytest.param(60, marks=pytest.mark.slow)], ids=["10s", "60s"]
)
def test_two_keys_get_their_share_beside_a_greedy_third(tmp_path: Path, seconds: int) -> None:
    """The share of each of three is a third of all tokens; the greedy one asks eight times as
    often as the server can answer at a time."""
    file = KeyFile(tmp_path / "keys.json")
    limits = read_grant({"tokens_per_minute": 1_000_000})
    keys = {
        name: file.add(name, expires=None, grant=limits)[0] for name in ("ada", "bob", "greedy")
    }
    num_clients = {"ada": 4, "bob": 4, "greedy": 24}
    with started("--keys", str(file.path), "--max-sequences", "6", *QUIET) as server:
        until = time.monotonic() + seconds
        askers = {
            name: [Asker(server, key, until) for _ in range(num_clients[name])]
            for name, key in keys.items()
        }
        for each in (asker for group in askers.values() for asker in group):
            each.start()
        for each in (asker for group in askers.values() for asker in group):
            each.join(seconds + 60)
    got = {name: sum(asker.num_tokens for asker in group) for name, group in askers.items()}
    share = sum(got.values()) / 3
    assert got["ada"] >= 0.8 * share, got
    assert got["bob"] >= 0.8 * share, got
