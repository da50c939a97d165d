"""A client that leaves takes its work along: streaming or not, before and after the first token."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

import pytest

from appliance.api import protocol
from appliance.api.disconnect import run_while_connected
from tests.api.conftest import MODEL, WAIT_S, FakeServer
from tests.api.fake_service import FakeService, say

CHAT: Any = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}]}
BODIES = [
    ("/generate", {"prompt": "Hi"}),
    ("/v1/chat/completions", CHAT),
    ("/v1/completions", {"model": MODEL, "prompt": ["Hi", "Ho"]}),
]


def connect(server: FakeServer, path: str, body: Any, next_request: bytes = b"") -> socket.socket:
    """A client that has sent its request."""
    content = json.dumps(body).encode()
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=WAIT_S)
    connection.sendall(
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(content)}\r\n\r\n".encode()
        + content
        + next_request
    )
    return connection


def wait_until_closed(service: FakeService) -> None:
    assert service.has_closed.wait(WAIT_S)


@pytest.mark.parametrize(("path", "body"), BODIES)
@pytest.mark.parametrize("stream", [False, True])
def test_leaving_before_the_first_token_cancels(
    fake_server: FakeServer, path: str, body: Any, stream: bool
) -> None:
    service = fake_server.service
    service.script, service.hold = (lambda _: []), True
    with connect(fake_server, path, body | {"stream": stream}):
        assert service.has_started.wait(WAIT_S)
    wait_until_closed(service)


@pytest.mark.parametrize(("path", "body"), BODIES)
def test_leaving_a_stream_cancels(fake_server: FakeServer, path: str, body: Any) -> None:
    service = fake_server.service
    service.script, service.hold = (lambda _: say("Hello", " there", finish=False)), True
    with connect(fake_server, path, body | {"stream": True}) as connection:
        received = b""
        while b"there" not in received:
            received += connection.recv(65536)
    wait_until_closed(service)
    assert b"[DONE]" not in received


@pytest.mark.parametrize("stream", [False, True])
def test_leaving_cancels_though_another_request_waits_on_the_connection(
    fake_server: FakeServer, stream: bool
) -> None:
    service = fake_server.service
    service.script, service.hold = (lambda _: say("Hello", finish=False)), True
    body = {"prompt": "Hi", "stream": stream}
    with connect(fake_server, "/generate", body, b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"):
        assert service.has_started.wait(WAIT_S)
    wait_until_closed(service)


@pytest.mark.parametrize(("path", "body"), BODIES)
def test_leaving_a_whole_answer_that_is_being_made_cancels(
    fake_server: FakeServer, path: str, body: Any
) -> None:
    service = fake_server.service
    service.script, service.hold = (lambda _: say("Hello", finish=False)), True
    with connect(fake_server, path, body):
        assert service.has_started.wait(WAIT_S)
    wait_until_closed(service)


def test_a_client_that_does_not_read_holds_nobody_up(fake_server: FakeServer) -> None:
    """Its stream fills the socket and stops; others are served; when it leaves, its work ends."""
    service = fake_server.service
    service.script = lambda _: say(*["x" * 60_000] * 400)
    with connect(fake_server, "/generate", {"prompt": "Hi", "stream": True}):
        assert service.has_started.wait(WAIT_S)
        with connect(fake_server, "/v1/embeddings", {"model": MODEL, "input": "a"}) as other:
            assert other.recv(12) == b"HTTP/1.1 200"
        assert not service.has_closed.is_set()
    wait_until_closed(service)


def test_a_client_that_has_stopped_reading_is_let_go(
    fake_server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "WRITE_TIMEOUT_S", 0.05)
    service = fake_server.service
    service.script = lambda _: say(*["x" * 60_000] * 400)
    with connect(fake_server, "/generate", {"prompt": "Hi", "stream": True}):
        wait_until_closed(service)


def test_a_slow_reader_gets_all_of_its_answer(
    fake_server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "WRITE_TIMEOUT_S", 0.5)
    service = fake_server.service
    service.script = lambda _: say(*["x" * 60_000] * 400)
    received = b""
    with connect(fake_server, "/generate", {"prompt": "Hi", "stream": True}) as connection:
        while part := connection.recv(65536):
            received = received[-100:] + part
            if received.endswith(b"0\r\n\r\n"):
                break
    assert b"[DONE]" in received


@pytest.mark.anyio
async def test_work_that_ends_first_gives_its_result() -> None:
    async def receive() -> Any:
        await asyncio.Event().wait()

    async def work() -> int:
        return 7

    assert await run_while_connected(receive, work()) == 7


@pytest.mark.anyio
async def test_an_error_in_the_work_is_the_callers() -> None:
    async def receive() -> Any:
        await asyncio.Event().wait()

    async def work() -> None:
        raise ValueError("of the work")

    with pytest.raises(ValueError, match="of the work"):
        await run_while_connected(receive, work())


@pytest.mark.anyio
async def test_when_the_caller_is_cancelled_so_is_the_work() -> None:
    was_cancelled = False

    async def receive() -> Any:
        await asyncio.Event().wait()

    async def work() -> None:
        nonlocal was_cancelled
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            was_cancelled = True
            raise

    task = asyncio.create_task(run_while_connected(receive, work()))
    for _ in range(3):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert was_cancelled
