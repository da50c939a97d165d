"""vLLM's own router in front of two of our servers: chats, streams and tools pass through it."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from openai.types.chat import (
    ChatCompletionFunctionToolParam,
    ChatCompletionMessageFunctionToolCall,
)

from tests.e2e.test_process import Running, started

WAIT_S = 60
MODEL = "pebble"
QUESTION = "What is 3 + 4?"
TOOL: ChatCompletionFunctionToolParam = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def routing(*servers: Running) -> Iterator[str]:
    """The address of a router that spreads requests over `servers`, once it is healthy."""
    program = shutil.which("vllm-router", path=str(Path(sys.executable).parent))
    assert program is not None, "vllm-router belongs to requirements/dev.txt"
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    workers = [f"http://{server.address}" for server in servers]
    command = [program, "--host", "127.0.0.1", "--port", str(port), "--policy", "round_robin"]
    command += ["--prometheus-port", str(free_port()), "--worker-urls", *workers]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as router:
        try:
            wait_until_healthy(url, router)
            yield url
        finally:
            router.kill()


def wait_until_healthy(url: str, router: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline and router.poll() is None:
        if is_healthy(url):
            return
        time.sleep(0.1)
    pytest.fail(f"the router did not become healthy (exit code {router.poll()})")


def is_healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=WAIT_S) as response:  # noqa: S310
            return bool(response.status == 200)
    except OSError:
        return False


def answered(server: Running) -> int:
    """How many chats the server has answered, by its own count."""
    with urllib.request.urlopen(f"http://{server.address}/metrics") as response:
        lines = response.read().decode().splitlines()
    start = 'appliance_requests_total{route="/v1/chat/completions",status="200"} '
    return sum(int(float(line.removeprefix(start))) for line in lines if line.startswith(start))


def test_chats_streams_and_tools_pass_through_the_router() -> None:
    with started() as first, started() as second, routing(first, second) as url:
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=WAIT_S)
        whole = [
            client.chat.completions.create(
                model=MODEL, messages=[{"role": "user", "content": QUESTION}], temperature=0
            )
            for _ in range(4)
        ]
        assert {each.choices[0].message.content for each in whole} == {"3 + 4 = 7."}
        assert len({each.system_fingerprint for each in whole}) == 1
        assert answered(first) >= 1
        assert answered(second) >= 1

        stream = client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": QUESTION}],
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = list(stream)
        pieces = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
        assert "".join(pieces) == "3 + 4 = 7."
        assert len(pieces) > 3
        assert chunks[-1].usage is not None

        called = client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": "What is the weather in Paris?"}],
            tools=[TOOL],
            tool_choice="required",
            temperature=0,
        )
        calls = called.choices[0].message.tool_calls
        assert calls is not None
        [call] = calls
        assert isinstance(call, ChatCompletionMessageFunctionToolCall)
        assert call.function.name == "get_weather"
        assert json.loads(call.function.arguments) == {"city": "Paris"}
