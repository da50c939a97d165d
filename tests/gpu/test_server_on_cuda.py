"""The whole server on a CUDA device: it starts, says where it computes, and answers alike."""

from __future__ import annotations

import json
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from bench.process import Server, free_port, server

pytestmark = pytest.mark.gpu

START_TIMEOUT_S = 180.0


def ask(url: str, body: dict[str, object] | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def wait_until_ready(running: Server, url: str) -> None:
    end = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < end:
        running.check_alive()
        try:
            ask(f"{url}/health")
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.2)
        else:
            return
    pytest.fail(running.log.read_text())


def test_the_server_answers_alike_alone_and_among_others(tmp_path: Path, device: str) -> None:
    log, port = tmp_path / "log", free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "appliance", "serve", "--port", str(port)]
    body: dict[str, object] = {"max_new_tokens": 40, "temperature": 0.8, "seed": 4}
    one = {**body, "prompt": "Once upon a time"}
    others = [{**body, "prompt": f"{'word ' * count}Once", "seed": count} for count in range(24)]
    flags = ["--device", device.partition(":")[0], "--engine", "torch"]
    with server([*command, *flags], env={}, log=log) as running:
        wait_until_ready(running, url)
        runtime = ask(f"{url}/version")["runtime"]
        assert runtime["engine"] == "torch"
        assert runtime["device"].startswith(device)
        alone = ask(f"{url}/generate", one)
        with ThreadPoolExecutor(25) as pool:
            answers = list(pool.map(lambda each: ask(f"{url}/generate", each), [*others, one]))
    assert answers[-1]["generated_text"] == alone["generated_text"]
    assert "falls short" not in log.read_text(), "the law was not seen to hold"
