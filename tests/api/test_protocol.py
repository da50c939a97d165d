"""The head of a request has bounds, in bytes and in time; what is not HTTP is told so."""

from __future__ import annotations

import gc
import json
import socket

import httpx2
import pytest

from appliance.serve import http1
from tests.api.conftest import FakeServer
from tests.api.fake_service import say

WAIT_S = 10


def connect(server: FakeServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=WAIT_S)


def read_to_end(connection: socket.socket) -> bytes:
    answer = b""
    try:
        while part := connection.recv(65536):
            answer += part
    except ConnectionError:
        pass
    return answer


@pytest.mark.parametrize("line", [b"a" * 1000, b"a: b\r\n" * 100])
def test_an_endless_head_is_cut_off(
    fake_server: FakeServer, http: httpx2.Client, line: bytes
) -> None:
    with connect(fake_server) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX-A: ")
        num_sent = 0
        try:
            while num_sent < 50_000_000:
                connection.sendall(line)
                num_sent += len(line)
        except ConnectionError:
            pass
    assert num_sent < 50_000_000
    assert http.get("/livez").status_code == 200


def test_too_large_a_head_is_told_so(fake_server: FakeServer, http: httpx2.Client) -> None:
    with connect(fake_server) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\n")
        http.get("/livez")  # answered after the line above was read
        connection.sendall(b"X-A: " + b"a" * (http1.MAX_HEAD_BYTES + 1))
        answer = read_to_end(connection)
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "headers_too_large"


def test_large_cookies_are_no_reason_to_refuse(http: httpx2.Client) -> None:
    response = http.get("/livez", headers={"Cookie": "a" * 30_000})
    assert response.status_code == 200


CHUNKED = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("begin", "piece"),
    [
        (b"0\r\n", b"a: b\r\n" * 200),
        (b"0\r\nX-A: ", b"a" * 1000),
        (b"5;x=", b"a" * 1000),
        (b"", b"0" * 1000),
    ],
    ids=["trailers", "a trailer", "an extension", "a chunk's length"],
)
def test_what_follows_a_head_is_no_more_endless(
    fake_server: FakeServer, http: httpx2.Client, begin: bytes, piece: bytes
) -> None:
    with connect(fake_server) as connection:
        connection.sendall(CHUNKED + begin)
        num_sent = 0
        try:
            while num_sent < 50_000_000:
                connection.sendall(piece)
                num_sent += len(piece)
        except ConnectionError:
            pass
    assert num_sent < 50_000_000
    assert http.get("/livez").status_code == 200


def test_trailers_are_no_headers(fake_server: FakeServer) -> None:
    """A few are read over: the answer is that of the head, and the connection serves on."""
    trailers = b"0\r\nX-Request-Id: late\r\nHost: evil.test\r\n\r\n"
    last = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    with connect(fake_server) as connection:
        connection.sendall(CHUNKED + trailers + last)
        answer = read_to_end(connection)
    assert answer.count(b"HTTP/1.1 200 OK") == 2
    assert b"late" not in answer


def test_a_body_in_many_small_chunks_is_read(fake_server: FakeServer) -> None:
    head = (
        b"POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    body = b'{"prompt": "Hi"}'.ljust(60_000)
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body)
    with connect(fake_server) as connection:
        connection.sendall(head + chunks + b"0\r\n\r\n")
        assert read_to_end(connection).startswith(b"HTTP/1.1 200 OK")


def test_an_answer_is_not_mixed_with_a_refusal(fake_server: FakeServer) -> None:
    """What is wrong after a request whose answer has begun cuts the connection, no more."""
    service = fake_server.service
    service.script, service.hold = (lambda _: say("Hello", finish=False)), True
    body = b'{"prompt": "Hi", "stream": true}'
    with connect(fake_server) as connection:
        connection.sendall(
            b"POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        received = b""
        while b"Hello" not in received:
            received += connection.recv(65536)
        connection.sendall(b"\x16\x03\x01\r\n\r\n")
        assert b"HTTP/1.1 400" not in read_to_end(connection)
    assert service.has_closed.wait(WAIT_S)


@pytest.mark.parametrize("sent", [b"", b"GET /livez HTTP/1.1\r\nHost: local"])
def test_a_head_that_does_not_end_is_not_awaited_for_ever(
    fake_server: FakeServer, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(http1, "HEAD_TIMEOUT_S", 0.05)
    with connect(fake_server) as connection:
        connection.sendall(sent)
        assert connection.recv(1) == b""


def test_a_connection_is_used_again(fake_server: FakeServer) -> None:
    """Two requests in one write: the second waits for the first."""
    request = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n"
    with connect(fake_server) as connection:
        connection.sendall(request + b"\r\n" + request + b"Connection: close\r\n\r\n")
        assert read_to_end(connection).count(b"HTTP/1.1 200 OK") == 2


def test_a_request_leaves_nothing_for_the_garbage_collector(http: httpx2.Client) -> None:
    def num_bodies() -> int:
        return sum(type(each) is http1.ChunkedBody for each in gc.get_objects())

    http.get("/livez")
    gc.collect()
    gc.disable()
    try:
        before = num_bodies()
        for _ in range(5):
            http.get("/livez")
            http.post("/generate", json={"prompt": "Hi", "stream": True})
        assert num_bodies() <= before + 1
    finally:
        gc.enable()


@pytest.mark.parametrize("sent", [b"\x16\x03\x01 hello\r\n\r\n", b"GET\r\n\r\n", b"{}\r\n\r\n"])
def test_what_is_not_http_is_told_so(fake_server: FakeServer, sent: bytes) -> None:
    with connect(fake_server) as connection:
        connection.sendall(sent)
        answer = read_to_end(connection)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "invalid_http"
