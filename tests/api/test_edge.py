"""The outermost layer: request ids, the Host allow-list, headers, counts and the log."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import logging
import socket
from typing import Any

import httpx2
import pytest

from appliance.api.http.edge import host_name
from appliance.serve.app import create_app
from tests.api.conftest import MAX_BODY_BYTES, FakeServer, make_state
from tests.api.fake_service import FakeService, say

EVERY_ADDRESS = "0.0.0.0"  # noqa: S104  nothing is bound to it
PATHS = ["/health", "/nowhere", "/v1/models", "/docs", "/", "/metrics"]


@pytest.mark.parametrize("path", PATHS)
def test_every_answer_is_named(http: httpx2.Client, path: str) -> None:
    first, second = http.get(path), http.get(path)
    assert first.headers["x-request-id"].startswith("req-")
    assert first.headers["x-request-id"] != second.headers["x-request-id"]
    assert first.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("path", PATHS)
def test_a_clients_own_name_comes_back(http: httpx2.Client, path: str) -> None:
    response = http.get(path, headers={"X-Request-Id": "trace/7!~"})
    assert response.headers["x-request-id"] == "trace/7!~"


@pytest.mark.parametrize(
    ("path", "status"), [("/", 200), ("/health", 200), ("/generate", 405), ("/nowhere", 404)]
)
def test_head_is_get_without_the_body(http: httpx2.Client, path: str, status: int) -> None:
    response = http.head(path)
    assert response.status_code == status
    assert response.content == b""
    assert int(response.headers["content-length"]) > 0


@pytest.mark.parametrize("name", ["", "a b", "x" * 129, "é".encode("latin-1"), "a\tb"])
def test_an_unusable_name_is_replaced(http: httpx2.Client, name: Any) -> None:
    response = http.get("/livez", headers={"X-Request-Id": name})
    assert response.status_code == 200
    assert response.headers["x-request-id"].startswith("req-")


def test_the_name_reaches_the_service(http: httpx2.Client, service: FakeService) -> None:
    http.post("/generate", json={"prompt": "Hi"}, headers={"X-Request-Id": "mine"})
    assert service.requests[0].request_id == "mine"


def test_a_stream_is_named(http: httpx2.Client) -> None:
    response = http.post(
        "/generate", json={"prompt": "Hi", "stream": True}, headers={"X-Request-Id": "mine"}
    )
    assert response.headers["x-request-id"] == "mine"


def test_a_kept_connection_ends_with_the_first_answer_of_a_drain(fake_server: FakeServer) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", fake_server.port, timeout=10)
    with contextlib.closing(connection):
        assert not ends_connection(connection)
        fake_server.state.drain()
        try:
            assert ends_connection(connection)
        finally:
            fake_server.state.recover()


def ends_connection(connection: http.client.HTTPConnection) -> bool:
    connection.request("GET", "/livez")
    with connection.getresponse() as response:
        response.read()
        return response.will_close


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("method", "path", "content", "status"),
    [
        ("POST", "/generate", b'{"prompt": "Hi", "seed": 4}', 200),
        ("POST", "/generate", b'{"prompt": "Hi", "seed": 4, "stream": true}', 200),
        ("POST", "/%67enerate", b'{"prompt": "Hi", "seed": 4}', 200),
        ("POST", "/generate?stream=true", b'{"prompt": "Hi", "seed": 4}', 200),
        ("POST", "/detokenize", b'{"tokens": [72, 105]}', 200),
        ("POST", "/generate", b'{"prompt": 7}', 400),
        ("POST", "/generate", b"[", 400),
        ("POST", "/generate", b"", 400),
        ("POST", "/generate", b" " * (MAX_BODY_BYTES + 1), 413),
        ("POST", "/generate/", b'{"prompt": "Hi"}', 404),
        ("POST", "//generate", b'{"prompt": "Hi"}', 404),
        ("POST", "/Generate", b'{"prompt": "Hi"}', 404),
        ("PUT", "/generate", b'{"prompt": "Hi"}', 405),
        ("HEAD", "/generate", b"", 405),
        ("OPTIONS", "/generate", b"", 405),
    ],
)
async def test_a_route_is_its_method_and_exact_path(
    method: str, path: str, content: bytes, status: int
) -> None:
    transport = httpx2.ASGITransport(create_app(make_state(FakeService())))
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
        headers = {"Content-Type": "application/json", "X-Request-Id": "same"}
        response = await client.request(
            method, f"http://localhost{path}", content=content, headers=headers
        )
    assert response.status_code == status
    assert response.headers.get_list("x-request-id") == ["same"]


def test_other_sites_get_no_permission(http: httpx2.Client) -> None:
    response = http.options(
        "/generate",
        headers={"Origin": "http://evil.test", "Access-Control-Request-Method": "POST"},
    )
    assert response.status_code == 405
    response = http.get("/v1/models", headers={"Origin": "http://evil.test"})
    assert not [name for name in response.headers if name.startswith("access-control")]


async def status_for(host: str, bound_host: str, allowed_hosts: tuple[str, ...] = ()) -> int:
    state = make_state(FakeService(), bound_host=bound_host)
    state.allowed_hosts = allowed_hosts
    transport = httpx2.ASGITransport(create_app(state))
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
        response = await client.get("/livez", headers={"Host": host})
    if response.status_code != 200:
        assert response.json()["error"]["code"] == "host_not_allowed"
        assert host not in response.text
    return response.status_code


@pytest.mark.anyio
@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8000", "LOCALHOST.", "127.0.0.1:1", "[::1]:8000", "[::1]"]
)
async def test_local_names_are_answered(host: str) -> None:
    assert await status_for(host, "127.0.0.1") == 200


@pytest.mark.anyio
@pytest.mark.parametrize(
    "host",
    [
        "evil.test",
        "evil.test:8000",
        "localhost.evil.test",
        "127.0.0.1.evil.test",
        "192.168.1.9",
        "[fe80::1]",
        "localhost@evil.test",
    ],
)
async def test_other_names_are_refused(host: str) -> None:
    assert await status_for(host, "127.0.0.1") == 403


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("host", "status"), [("192.168.1.9:8000", 200), ("[fe80::1]:8000", 200), ("evil.test", 403)]
)
@pytest.mark.parametrize("bound_host", [EVERY_ADDRESS, "::"])
async def test_bound_to_all_addresses_any_address_is_answered(
    host: str, status: int, bound_host: str
) -> None:
    assert await status_for(host, bound_host) == status


@pytest.mark.anyio
async def test_the_bound_and_the_allowed_names_are_answered() -> None:
    assert await status_for("box.lan:8000", "Box.lan") == 200
    assert await status_for("llama.svc", EVERY_ADDRESS, ("LLAMA.svc",)) == 200
    assert await status_for("evil.test", EVERY_ADDRESS, ("llama.svc",)) == 403
    assert await status_for("evil.test", "127.0.0.1", ("*",)) == 200


@pytest.mark.anyio
async def test_a_request_without_host_passes_and_one_with_two_does_not() -> None:
    app = create_app(make_state(FakeService()))
    for hosts, expected in (([], 200), ([(b"host", b"localhost")] * 2, 403)):
        sent: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.request", "body": b""}

        async def send(message: Any, sent: list[Any] = sent) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "GET", "path": "/livez", "headers": hosts,
                 "query_string": b"", "root_path": ""}  # fmt: skip
        await app(scope, receive, send)
        assert sent[0]["status"] == expected


@pytest.mark.parametrize(
    ("header", "name"), [("[::1", "::1"), ("", ""), (":80", ""), ("a:b:c", "a"), ("A.b.", "a.b")]
)
def test_a_host_header_is_taken_apart(header: str, name: str) -> None:
    assert host_name(header) == name


def test_requests_are_counted_by_route_and_not_by_path(http: httpx2.Client) -> None:
    http.get("/v1/models/tiny-llama")
    http.get("/made/up/path")
    metrics = http.get("/metrics").text
    assert 'route="/v1/models/{model:path}",status="200"' in metrics
    assert 'route="unmatched",status="404"' in metrics
    assert "/made/up" not in metrics


def test_a_request_is_logged_without_what_it_said(
    http: httpx2.Client, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        http.post("/generate?secret=canary-1", json={"prompt": "canary-2"})
    ours = [record for record in caplog.records if record.name.startswith("appliance")]
    [request] = [record for record in ours if record.msg == "http_request"]
    assert vars(request)["route"] == "/generate"
    assert vars(request)["status"] == 200
    assert not [record for record in ours if "canary" in str(vars(record))]


def test_a_client_that_left_is_counted_as_such(fake_server: FakeServer) -> None:
    """An unread body: the client leaves while it sends."""
    with socket.create_connection(("127.0.0.1", fake_server.port)) as connection:
        connection.sendall(
            b"POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: 9\r\n\r\n{"
        )
    with httpx2.Client(base_url=fake_server.url) as client:
        for _ in range(1000):
            if 'route="/generate",status="499"' in client.get("/metrics").text:
                return
    pytest.fail("499 was not counted")


@pytest.mark.anyio
async def test_a_request_that_is_cancelled_gets_an_answer_of_our_shape() -> None:
    service = FakeService()
    service.script, service.hold = (lambda _: []), True
    app = create_app(make_state(service))
    sent: list[Any] = []
    task = asyncio.create_task(
        app(post_scope("/generate"), receive_once(b'{"prompt":"a"}'), keep(sent))
    )
    await run_on()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sent[0]["status"] == 503
    assert json.loads(sent[1]["body"])["error"]["code"] == "not_ready"
    assert service.streams[0].is_closed


@pytest.mark.anyio
async def test_a_stream_that_is_cancelled_is_cut() -> None:
    service = FakeService()
    service.script, service.hold = (lambda _: say("Hello", finish=False)), True
    app = create_app(make_state(service))
    sent: list[Any] = []
    body = b'{"prompt":"a","stream":true}'
    task = asyncio.create_task(app(post_scope("/generate"), receive_once(body), keep(sent)))
    await run_on()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [message["status"] for message in sent if "status" in message] == [200]
    assert sent[-1]["more_body"]


@pytest.mark.anyio
@pytest.mark.parametrize("stream", [b"false", b"true"])
async def test_responses_are_open_until_they_are_written(stream: bytes) -> None:
    service = FakeService()
    state = make_state(service)
    app = create_app(state)
    num_open = []

    async def send(message: Any) -> None:
        num_open.append(state.num_open_responses)

    assert state.num_open_responses == 0
    body = b'{"prompt":"a","stream":%b}' % stream
    await app(post_scope("/generate"), receive_once(body), send)
    assert set(num_open) == {1}
    assert state.num_open_responses == 0


@pytest.mark.anyio
async def test_only_requests_for_the_service_that_were_read_count_as_open() -> None:
    state = make_state(FakeService())
    app = create_app(state)
    num_open = []

    async def send(message: Any) -> None:
        num_open.append(state.num_open_responses)

    async def leave() -> Any:
        return {"type": "http.disconnect"}

    await app(post_scope("/livez", method="GET"), receive_once(b""), send)
    await app(post_scope("/generate"), leave, send)
    await app(post_scope("/generate"), receive_once(b"x" * (MAX_BODY_BYTES + 1)), send)
    assert set(num_open[:2]) == {0}
    assert state.num_open_responses == 0


def test_a_client_that_left_leaves_no_open_response(fake_server: FakeServer) -> None:
    service, state = fake_server.service, fake_server.state
    service.script, service.hold = (lambda _: []), True
    with (
        httpx2.Client(base_url=fake_server.url, timeout=0.2) as client,
        contextlib.suppress(httpx2.TimeoutException),
    ):
        client.post("/generate", json={"prompt": "Hi"})
    assert service.has_closed.wait(10)
    with httpx2.Client(base_url=fake_server.url) as client:
        for _ in range(1000):
            client.get("/livez")
            if state.num_open_responses == 0:
                return
    pytest.fail("a response is open for ever")


async def run_on() -> None:
    """Until every task waits for what never comes."""
    for _ in range(100):
        await asyncio.sleep(0)


def post_scope(path: str, method: str = "POST") -> dict[str, Any]:
    headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
    return {"type": "http", "method": method, "path": path, "headers": headers,
            "query_string": b"", "root_path": ""}  # fmt: skip


def receive_once(body: bytes) -> Any:
    """The body, and then nothing: the client stays."""
    messages = [{"type": "http.request", "body": body}]

    async def receive() -> Any:
        if messages:
            return messages.pop()
        return await asyncio.Future()

    return receive


def keep(sent: list[Any]) -> Any:
    async def send(message: Any) -> None:
        sent.append(message)

    return send
