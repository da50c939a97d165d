"""A client that leaves takes its work along: streaming or not, before and after the first token."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest

from appliance.api.http.disconnect import run_while_connected
from appliance.completion import CompletionRequest, CompletionStream, Delta
from appliance.serve import http1
from tests.api.conftest import MODEL, WAIT_S, FakeServer
from tests.api.fake_service import FakeService, FakeStream, say

CHAT: Any = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}]}
BODIES = [
    ("/generate", {"prompt": "Hi"}),
    ("/v1/chat/completions", CHAT),
    ("/v1/completions", {"model": MODEL, "prompt": ["Hi", "Ho"]}),
]


def connect(server: FakeServer, path: str, body: Any) -> socket.socket:
    """A client that has sent its request."""
    content = json.dumps(body).encode()
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=WAIT_S)
    connection.sendall(
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(content)}\r\n\r\n".encode()
        + content
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


@pytest.mark.parametrize("is_late", [False, True])
@pytest.mark.parametrize("stream", [False, True])
def test_leaving_cancels_though_another_request_waits_on_the_connection(
    fake_server: FakeServer, http: httpx2.Client, stream: bool, is_late: bool
) -> None:
    service = fake_server.service
    service.script, service.hold = (lambda _: say("Hello", finish=False)), True
    with connect(fake_server, "/generate", {"prompt": "Hi", "stream": stream}) as connection:
        if is_late:
            assert service.has_started.wait(WAIT_S)
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        http.get("/livez")  # answered after the line above was read
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
    monkeypatch.setattr(http1, "WRITE_TIMEOUT_S", 0.05)
    service = fake_server.service
    service.script = lambda _: say(*["x" * 60_000] * 400)
    with connect(fake_server, "/generate", {"prompt": "Hi", "stream": True}):
        wait_until_closed(service)


def test_a_slow_reader_gets_all_of_its_answer(
    fake_server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http1, "WRITE_TIMEOUT_S", 0.5)
    service = fake_server.service
    service.script = lambda _: say(*["x" * 60_000] * 400)
    received = b""
    with connect(fake_server, "/generate", {"prompt": "Hi", "stream": True}) as connection:
        while part := connection.recv(65536):
            received = received[-100:] + part
            if received.endswith(b"0\r\n\r\n"):
                break
    assert b"[DONE]" in received


class Bursts(FakeStream):
    """Numbers, one or many at a time, for two choices in turn."""

    NUM_DELTAS = 800
    NUM_BURSTS_UNREAD = 70  # 9 MB: more than sockets hold

    def follow(self, take: Callable[[Delta], None]) -> asyncio.Future[None]:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        num_bursts = itertools.count()
        sizes = itertools.cycle([1, 1, 30, 1, 2])
        deltas = iter([Delta(index=i % 2, text=f"{i:<20000}") for i in range(self.NUM_DELTAS)])

        def burst() -> None:
            if next(num_bursts) == self.NUM_BURSTS_UNREAD:
                self._service.has_started.set()
            if not (some := list(itertools.islice(deltas, next(sizes)))):
                done.set_result(None)
                return
            for delta in some:
                take(delta)
            loop.call_later(0.001, burst)

        loop.call_soon(burst)
        return done


def test_who_reads_by_fits_and_starts_gets_everything_in_order(
    fake_server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some is written where it arrives, some by the task, some as one."""
    service = fake_server.service

    async def start(request: CompletionRequest) -> CompletionStream:
        return Bursts(service, request, [])

    monkeypatch.setattr(service, "start", start)
    body = {"model": MODEL, "prompt": "Hi", "stream": True, "n": 2}
    received = b""
    with connect(fake_server, "/v1/completions", body) as connection:
        assert service.has_started.wait(WAIT_S)
        while not received.endswith(b"0\r\n\r\n"):
            received += connection.recv(2**20)
    [*events, done, _] = "".join(chunks(received.partition(b"\r\n\r\n")[2])).split("\n\n")
    assert done == "data: [DONE]"
    texts = ["", ""]
    for event in events:
        [choice] = json.loads(event.removeprefix("data: "))["choices"]
        texts[choice["index"]] += choice["text"]
    assert len(events) < Bursts.NUM_DELTAS
    numbers = [list(map(int, text.split())) for text in texts]
    assert numbers == [list(range(first, Bursts.NUM_DELTAS, 2)) for first in (0, 1)]


def chunks(body: bytes) -> Iterator[str]:
    """What HTTP/1.1 wrote in chunks."""
    while body:
        size, _, rest = body.partition(b"\r\n")
        end = int(size, 16)
        assert rest[end : end + 2] == b"\r\n"
        yield rest[:end].decode()
        body = rest[end + 2 :]


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
