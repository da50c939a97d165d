"""Starts a built server, has it generate one answer, and stops it.

    serve_check.py LLAMA_SERVER [MODEL_NAME]

MODEL_PATH and the other settings come from the environment, as for the server itself.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

START_TIMEOUT_S = 240
ANSWER_TIMEOUT_S = 120
STOP_TIMEOUT_S = 60


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def ask(url: str, body: dict[str, object] | None = None) -> dict[str, object]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=ANSWER_TIMEOUT_S) as response:
        answer: dict[str, object] = json.load(response)
        return answer


def wait_until_ready(server: subprocess.Popen[bytes], url: str) -> None:
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline_s:
        if server.poll() is not None:
            sys.exit(f"the server ended with status {server.returncode} before it was ready")
        try:
            ask(f"{url}/readyz")
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.1)
        else:
            return
    sys.exit(f"the server was not ready after {START_TIMEOUT_S} s")


def check(program: str, expected_model: str) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    started_at_s = time.monotonic()
    server = subprocess.Popen([program], env={**os.environ, "PORT": str(port)})
    try:
        wait_until_ready(server, url)
        print(f"ready after {time.monotonic() - started_at_s:.1f} s")
        body = {"prompt": "Once upon a time", "max_new_tokens": 16, "temperature": 0}
        answer = ask(f"{url}/generate", {**body})
        print(json.dumps(answer))
        if answer["model"] != expected_model or not answer["generated_text"]:
            sys.exit(f"expected an answer of the model {expected_model}")
        server.send_signal(signal.SIGTERM)
        if status := server.wait(STOP_TIMEOUT_S):
            sys.exit(f"the server ended with status {status} after SIGTERM")
    finally:
        server.kill()


if __name__ == "__main__":
    check(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "pebble")
