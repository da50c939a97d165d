"""Asks a server with an OpenAI-compatible API, here a scripted one."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from appliance.cli.client import Client, Piece, ServerError, events, versioned
from appliance.errors import SettingsError
from tests.unit.cli.scripted_server import (
    Reply,
    ScriptedServer,
    chat_event,
    chat_events,
    event,
    json_reply,
    refused,
    stream_reply,
)

CHAT = "POST /v1/chat/completions"


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        yield server


def answer_of(server: ScriptedServer) -> list[Piece]:
    return list(Client(server.url).stream("/chat/completions", {"model": "m"}))


def test_a_streamed_answer_comes_piece_by_piece(server: ScriptedServer) -> None:
    server.routes[CHAT] = lambda _: stream_reply(chat_events("Hel", "lo", num_tokens=2))
    assert answer_of(server) == [
        Piece(text="Hel"),
        Piece(text="lo"),
        Piece(finish_reason="stop"),
        Piece(completion_tokens=2),
    ]


def test_a_text_completion_is_read_too(server: ScriptedServer) -> None:
    chunk = event({"choices": [{"text": "word", "finish_reason": "length"}]})
    server.routes["POST /v1/completions"] = lambda _: stream_reply([chunk])
    pieces = list(Client(server.url).stream("/completions", {}))
    assert pieces == [Piece(text="word", finish_reason="length")]


def test_it_asks_for_a_stream_with_usage_and_sends_its_key(server: ScriptedServer) -> None:
    server.routes[CHAT] = lambda _: stream_reply(chat_events("x"))
    list(Client(server.url, api_key="secret").stream("/chat/completions", {"model": "m"}))
    request = server.received[0]
    usage = {"include_usage": True}
    assert request.json() == {"model": "m", "stream": True, "stream_options": usage}
    assert request.headers["Authorization"] == "Bearer secret"


def test_chunks_may_end_inside_a_character_or_a_line(server: ScriptedServer) -> None:
    raw = 'data: {"choices": [{"delta": {"content": "grün ✓"}}]}\n\ndata: [DONE]\n\n'.encode()
    server.routes[CHAT] = lambda _: stream_reply([bytes([byte]) for byte in raw])
    assert answer_of(server) == [Piece(text="grün ✓")]


def test_events_may_be_commented_and_have_several_lines() -> None:
    lines = [
        b": hi\r\n",
        b"event: x\r\n",
        b"data: a\r\n",
        b"data:b\r\n",
        b"\r\n",
        b"\n",
        b"data: c",
    ]
    assert list(events(iter(lines))) == ["a\nb"]


def test_a_closed_stream_leaves_the_server(server: ScriptedServer) -> None:
    has_left = threading.Event()

    def words() -> Iterator[bytes]:
        try:
            while not has_left.wait(0.001):
                yield chat_event("again ")
        finally:
            has_left.set()

    server.routes[CHAT] = lambda _: stream_reply(words())
    stream = Client(server.url).stream("/chat/completions", {})
    assert next(stream).text == "again "
    stream.close()
    assert has_left.wait(5)


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (refused(400, "max_tokens is too large."), "max_tokens is too large. (HTTP 400)"),
        (json_reply({"detail": "Not Found"}, 404), "Not Found (HTTP 404)"),
        (json_reply({"error": "rate limited"}, 429), "rate limited (HTTP 429)"),
        (Reply(body=[b"<html>"], status=502), "The server answered: Bad Gateway. (HTTP 502)"),
        (json_reply([], 500), "The server answered: Internal Server Error. (HTTP 500)"),
        (Reply(body=[b"data: <p>\n\n"]), "The server's answer is not the JSON of an"),
        (stream_reply([event({"error": {"message": "It failed."}})]), "It failed."),
        (stream_reply([event({"error": {}})]), "The server failed midway."),
        (stream_reply([chat_event("half")]), "broke off before the answer was complete"),
        (stream_reply([]), "broke off before the answer was complete"),
    ],
)
def test_every_failure_is_one_sentence(server: ScriptedServer, reply: Reply, message: str) -> None:
    server.routes[CHAT] = lambda _: reply
    with pytest.raises(ServerError) as error:
        answer_of(server)
    assert message in error.value.message


def test_nobody_listening_is_said_with_the_way_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(ServerError, match=r"Nothing listens at .*Start a server with `appliance"):
        Client(f"http://127.0.0.1:{port}").first_model()


def test_a_server_that_does_not_speak_http_is_said_to_fail() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up() -> None:
            connection, _ = listener.accept()
            connection.recv(1000)
            connection.sendall(b"no http\r\n")
            connection.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        with pytest.raises(ServerError, match=r"The connection to .* failed: "):
            Client(f"127.0.0.1:{listener.getsockname()[1]}").first_model()
        thread.join()


def test_the_first_model_is_the_one_to_ask(server: ScriptedServer) -> None:
    server.routes["GET /v1/models"] = lambda _: json_reply({"data": [{"id": "a"}, {"id": "b"}]})
    assert Client(server.url).first_model() == "a"


def test_a_server_without_models_is_said_to_have_none(server: ScriptedServer) -> None:
    server.routes["GET /v1/models"] = lambda _: json_reply({"data": []})
    with pytest.raises(ServerError, match="offers no model; name one with --model"):
        Client(server.url).first_model()


@pytest.mark.parametrize(
    ("path", "api"),
    [("", "/v1"), ("/", "/v1"), ("/v1/", "/v1"), ("/api", "/api/v1"), ("/x/v1beta", "/x/v1beta")],
)
def test_the_api_is_found_below_the_url(path: str, api: str) -> None:
    assert versioned(path) == api


@pytest.mark.parametrize("url", ["ftp://x", "http://", "http://x:port", "http://[::1", "//"])
def test_a_url_that_cannot_be_one_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match="--url is "):
        Client(url)
