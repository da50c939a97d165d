"""How a stream is written: at once where the socket takes it, in one piece where many waited."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import httpx2
import openai
import pytest

from appliance.api.http.gate import DIRECT_BODY
from appliance.api.http.sse import (
    MANY_WAITING,
    MOST_AT_ONCE,
    PING,
    EventStream,
    start_stream,
)
from appliance.api.native.face import NATIVE
from appliance.api.native.generate import GenerateFace, GenerateRequest
from appliance.completion import CompletionRequest, CompletionStream, Delta
from appliance.errors import EngineFailure, QueueTimeout
from tests.api.conftest import FakeServer, make_identity
from tests.api.fake_service import PROMPT_IDS, FakeService, say

PassTime = Callable[[float], Awaitable[None]]

PING_INTERVAL_S = 0.02
SOME_PINGS_S = 10 * PING_INTERVAL_S


class HandFed(CompletionStream):
    """A stream whose deltas a test hands over."""

    def __init__(self) -> None:
        self.prompt_choices = None
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def follow(self, take: Any) -> asyncio.Future[None]:
        self.take = take
        return self.done

    def close(self) -> None:
        self.done.cancel()


class Socket:
    """What `send` and a direct body wrote; takes nothing more while it is full."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.direct: list[bytes] = []
        self.is_full = False
        self.room = asyncio.Event()

    @property
    def is_open(self) -> bool:
        return not self.is_full

    def write(self, piece: bytes) -> None:
        self.direct.append(piece)

    async def send(self, message: Any) -> None:
        if self.is_full:
            await self.room.wait()
        if message["type"] == "http.response.body":
            self.sent.append(message["body"])

    def make_room(self) -> None:
        self.is_full = False
        self.room.set()


def make_face() -> GenerateFace:
    return GenerateFace(GenerateRequest(prompt="Hi"), make_identity(), seed=4)


class Talk:
    """One stream that is being written, to a server that can write directly."""

    def __init__(self, ping_interval_s: float | None = None) -> None:
        self.stream, self.socket = HandFed(), Socket()
        self.events = EventStream([self.stream], make_face(), NATIVE.error_bytes, ping_interval_s)

    async def begin(self, *, is_direct: bool = True) -> None:
        scope = {"type": "http"} | ({"extensions": {DIRECT_BODY: self.socket}} if is_direct else {})
        self.writing = asyncio.create_task(self.events(scope, receive_nothing, self.socket.send))
        await settle()

    def say(self, texts: Sequence[str]) -> None:
        for text in texts:
            self.stream.take(Delta(text=text))

    def stop(self) -> None:
        self.writing.cancel()


async def receive_nothing() -> Any:
    await asyncio.Event().wait()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.mark.anyio
async def test_a_delta_is_written_where_it_arrives() -> None:
    talk = Talk()
    await talk.begin()
    talk.say(["a", "b"])
    assert talk.socket.direct == [b'data: {"text":"a"}\n\n', b'data: {"text":"b"}\n\n']
    talk.stop()


@pytest.mark.anyio
async def test_on_a_server_that_cannot_write_directly_the_task_writes() -> None:
    talk = Talk()
    await talk.begin(is_direct=False)
    for text in "abc":
        talk.say([text])
        await settle()
    assert talk.socket.sent == [b'data: {"text":"%b"}\n\n' % text for text in (b"a", b"b", b"c")]
    talk.stop()


@pytest.mark.anyio
async def test_what_came_before_the_head_is_written_after_it_and_in_order() -> None:
    talk = Talk()
    talk.say(["a", "b"])
    await talk.begin()
    talk.say(["c"])
    expected = b"".join(b'data: {"text":"%b"}\n\n' % text for text in (b"a", b"b", b"c"))
    assert b"".join(talk.socket.sent + talk.socket.direct) == expected
    talk.stop()


@pytest.mark.anyio
async def test_few_that_waited_for_a_slow_client_are_written_one_by_one() -> None:
    talk = Talk()
    await talk.begin()
    talk.socket.is_full = True
    talk.say("ab")
    await settle()
    talk.say("c")
    assert talk.socket.direct == []
    talk.socket.make_room()
    await settle()
    assert talk.socket.sent == [b'data: {"text":"%b"}\n\n' % text for text in (b"a", b"b", b"c")]
    talk.stop()


@pytest.mark.anyio
async def test_many_that_waited_are_written_as_one_and_the_next_directly_again() -> None:
    talk = Talk()
    await talk.begin()
    talk.socket.is_full = True
    talk.say("x" * MANY_WAITING)
    await settle()
    talk.socket.make_room()
    await settle()
    assert talk.socket.sent == [b'data: {"text":"%b"}\n\n' % (b"x" * MANY_WAITING)]
    talk.say("y")
    assert talk.socket.direct == [b'data: {"text":"y"}\n\n']
    talk.stop()


@pytest.mark.anyio
async def test_no_piece_is_made_of_more_than_so_many_that_waited() -> None:
    """All of a long answer at once would hold up every other."""
    talk = Talk()
    talk.say("x" * (2 * MOST_AT_ONCE + 1))
    await talk.begin()
    texts = [b"x" * MOST_AT_ONCE, b"x" * MOST_AT_ONCE, b"x"]
    assert talk.socket.sent == [b'data: {"text":"%b"}\n\n' % text for text in texts]
    talk.stop()


@pytest.mark.anyio
async def test_an_error_is_the_last_event_after_all_that_came_before_it() -> None:
    talk = Talk()
    await talk.begin()
    talk.say("a")
    talk.stream.done.set_exception(EngineFailure("The answer could not be computed."))
    await talk.writing
    assert talk.socket.direct == [b'data: {"text":"a"}\n\n']
    [error] = talk.socket.sent
    assert b"engine_failure" in error
    assert error.count(b"data:") == 1


@pytest.fixture
def pass_time(monkeypatch: pytest.MonkeyPatch) -> PassTime:
    """Moves the loop's clock on and lets what is due by then happen."""
    now_s = 0.0

    async def move(seconds: float) -> None:
        nonlocal now_s
        monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now_s)
        now_s += seconds
        await settle()

    return move


@pytest.mark.anyio
async def test_a_stream_without_tokens_sends_comments(pass_time: PassTime) -> None:
    await pass_time(0)
    talk = Talk(ping_interval_s=15)
    await talk.begin()
    for num_pings in range(3):
        assert talk.socket.sent == [PING] * num_pings
        await pass_time(14.9)
        assert talk.socket.sent == [PING] * num_pings
        await pass_time(0.2)
    talk.stop()


@pytest.mark.anyio
async def test_a_stream_on_which_tokens_come_says_nothing_else(pass_time: PassTime) -> None:
    await pass_time(0)
    talk = Talk(ping_interval_s=15)
    await talk.begin()
    for _ in range(10):
        await pass_time(10)
        talk.say("a")
    assert talk.socket.sent == []
    talk.stop()


@pytest.mark.anyio
async def test_the_comment_comes_an_interval_after_the_last_token(pass_time: PassTime) -> None:
    await pass_time(0)
    talk = Talk(ping_interval_s=15)
    await talk.begin()
    await pass_time(10)
    talk.say("a")
    await pass_time(14.9)
    assert talk.socket.sent == []
    await pass_time(0.2)
    assert talk.socket.sent == [PING]
    talk.stop()


@pytest.mark.anyio
async def test_without_an_interval_a_stream_waits_in_silence(pass_time: PassTime) -> None:
    await pass_time(0)
    talk = Talk()
    await talk.begin()
    await pass_time(1e6)
    assert talk.socket.sent == []
    talk.stop()


@pytest.mark.anyio
async def test_an_error_before_any_comment_keeps_its_status() -> None:
    service = FakeService()
    service.script = lambda _: [QueueTimeout("It waited too long.")]
    request = CompletionRequest(request_id="test", prompt="Hi")
    with pytest.raises(QueueTimeout):
        await start_stream(service, [request], make_face(), NATIVE.error_bytes)
    assert service.streams[0].is_closed


@pytest.fixture
def late_server(fake_server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> FakeServer:
    """Says nothing for a while, but that it is there."""
    monkeypatch.setattr(fake_server.state, "ping_interval_s", PING_INTERVAL_S)
    fake_server.service.delay_s = SOME_PINGS_S
    return fake_server


def test_comments_come_before_the_first_token(late_server: FakeServer, http: httpx2.Client) -> None:
    text = http.post("/generate", json={"prompt": "Hi", "stream": True}).text
    assert text.startswith(": ping\n\n: ping\n\n")
    assert text.endswith("data: [DONE]\n\n")


def test_an_error_after_a_comment_is_the_last_event(
    late_server: FakeServer, http: httpx2.Client
) -> None:
    late_server.service.script = lambda _: [QueueTimeout("It waited too long.")]
    answer = http.post("/generate", json={"prompt": "Hi", "stream": True})
    assert answer.status_code == 200
    assert "queue_timeout" in answer.text
    assert "[DONE]" not in answer.text


def test_the_official_client_skips_comments(late_server: FakeServer, client: openai.OpenAI) -> None:
    late_server.service.script = lambda _: say("Hello", " there")
    events = client.completions.create(
        model=late_server.model, prompt="Hi", stream=True, stream_options={"include_usage": True}
    )
    *chunks, last = events
    assert "".join(chunk.choices[0].text for chunk in chunks) == "Hello there"
    assert last.usage is not None
    assert last.usage.prompt_tokens == len(PROMPT_IDS)
