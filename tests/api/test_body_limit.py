"""A body over the limit is refused while it comes in, and the server serves on."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import httpx2
import pytest
from pydantic import JsonValue

from appliance.api.http import body as body_module
from appliance.api.http.body import parse_json
from appliance.errors import InvalidRequest
from appliance.serve.app import create_app
from tests.api.conftest import MAX_BODY_BYTES, FakeServer, make_state
from tests.api.fake_service import FakeService

CHUNK = b" " * 10_000


def read_answer(connection: socket.socket) -> bytes:
    answer = b""
    try:
        while part := connection.recv(65536):
            answer += part
    except ConnectionError:
        pass  # the server closed while our bytes were on their way
    return answer


def test_a_body_of_the_limit_is_read(http: httpx2.Client) -> None:
    body = b'{"prompt": "Hi"}'
    response = http.post(
        "/generate",
        content=body.ljust(MAX_BODY_BYTES),
        headers={"Content-Type": "application/json"},
    )
    assert response.status_code == 200


def test_a_declared_length_over_the_limit_is_refused_unread(fake_server: FakeServer) -> None:
    with socket.create_connection(("127.0.0.1", fake_server.port), timeout=5) as connection:
        connection.sendall(
            b"POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n" % (MAX_BODY_BYTES + 1)
        )
        answer = read_answer(connection)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b'"payload_too_large"' in answer


@pytest.mark.parametrize("length", [b"9" * 5000, b"1e9", b"-1"])
def test_a_length_that_is_no_number_of_ours_is_refused(
    fake_server: FakeServer, http: httpx2.Client, length: bytes
) -> None:
    with socket.create_connection(("127.0.0.1", fake_server.port), timeout=5) as connection:
        connection.sendall(
            b"POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: %s\r\nConnection: close\r\n\r\n{}" % length
        )
        answer = read_answer(connection)
    assert answer.split(b" ")[1:2] in ([b"400"], [b"413"])
    assert http.get("/livez").status_code == 200


def test_a_chunked_body_is_refused_when_it_passes_the_limit(fake_server: FakeServer) -> None:
    """The client would send for ever: the answer comes though the body never ends."""
    with socket.create_connection(("127.0.0.1", fake_server.port), timeout=5) as connection:
        connection.sendall(
            b"POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        chunk = b"%x\r\n%s\r\n" % (len(CHUNK), CHUNK)
        sent = 0
        try:
            while sent < 100 * MAX_BODY_BYTES:
                connection.sendall(chunk)
                sent += len(CHUNK)
        except ConnectionError:
            pass
        answer = read_answer(connection)
    assert sent < 100 * MAX_BODY_BYTES
    assert answer == b"" or answer.startswith(b"HTTP/1.1 413 ")


def test_a_chunked_body_over_the_limit_gets_its_answer(http: httpx2.Client) -> None:
    def body() -> Iterator[bytes]:
        for _ in range(MAX_BODY_BYTES // len(CHUNK) + 1):
            yield CHUNK

    response = http.post("/generate", content=body(), headers={"Content-Type": "application/json"})
    assert response.status_code == 413
    assert response.json()["error"]["code"] == "payload_too_large"
    assert str(MAX_BODY_BYTES) in response.json()["error"]["message"]


def test_a_chunked_body_within_the_limit_is_read(http: httpx2.Client) -> None:
    response = http.post(
        "/generate",
        content=iter([b'{"prom', b'pt": ', b'"Hi"}']),
        headers={"Content-Type": "application/json"},
    )
    assert response.status_code == 200


def test_a_body_that_breaks_off_harms_nobody(fake_server: FakeServer, http: httpx2.Client) -> None:
    with socket.create_connection(("127.0.0.1", fake_server.port), timeout=5) as connection:
        connection.sendall(
            b"POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b'Content-Length: 100\r\n\r\n{"prompt":'
        )
    assert http.post("/generate", json={"prompt": "Hi"}).status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        b'{"a": [' + b"1," * 60_000 + b"1]}",
        b'{"a": "' + b"\\u00e9" * 30_000 + b'"}',
        b'{"a": [' + b"[]," * 40_000 + b"[]]}",
        b'{"a": "' + b"[{" * 100_000 + b'"}',
    ],
)
def test_a_large_plain_body_is_parsed_quickly(body: bytes) -> None:
    started_at = time.perf_counter()
    parse_json(body)
    assert time.perf_counter() - started_at < 1


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b"[[]," * 500_000,
        b'"\\"[' * 500_000,
        b'[""' * 600_000,
        b'{"a":' * 100_000,
        b"9" * 100_000,
        b'{"a":1' + b',"a":1' * 30_000 + b"}",
    ],
)
def test_a_bomb_is_refused_quickly(body: bytes) -> None:
    started_at = time.perf_counter()
    with pytest.raises(InvalidRequest):
        parse_json(body)
    assert time.perf_counter() - started_at < 1


@pytest.mark.anyio
async def test_a_long_body_is_parsed_while_others_are_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is parsed on another thread than the event loop's."""
    threads = []

    def parse(body: bytes) -> JsonValue:
        threads.append(threading.get_ident())
        return parse_json(body)

    monkeypatch.setattr(body_module, "parse_json", parse)
    app = create_app(make_state(FakeService()))
    transport = httpx2.ASGITransport(app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
        for length in (10, body_module.LONG_BODY_BYTES):
            response = await client.post("/generate", json={"prompt": "a" * length})
            assert response.status_code == 200
    here = threading.get_ident()
    assert [thread == here for thread in threads] == [True, False]


@pytest.mark.parametrize("text", ["\\ud83d\\ude00", "😀", "\\u00e9", "\\uFFFF", "\\\\ud800"])
def test_characters_beyond_ascii_are_read(text: str) -> None:
    assert parse_json(f'{{"a": "{text}"}}'.encode())


@pytest.mark.parametrize("number", ["-0", "-0.0", "1e-400", "-9223372036854775808", "1E5"])
def test_odd_but_finite_numbers_are_read(number: str) -> None:
    assert parse_json(f'{{"a": {number}}}'.encode()) == {"a": float(number)}
