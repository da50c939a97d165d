"""Errors have one shape on every path, are small, and tell nothing they should not."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest

from appliance.errors import EngineFailure, NotReady, Overloaded, QueueTimeout, ServiceError
from tests.api.conftest import MODEL, WAIT_S, FakeServer
from tests.api.fake_service import FORBIDDEN_TOKEN

MAX_ERROR_BYTES = 8 * 1024
CANARY = "canary-6f1d"


def error_of(response: httpx2.Response) -> Any:
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert len(response.content) <= MAX_ERROR_BYTES
    return body["error"]


@pytest.mark.parametrize("path", ["/nowhere", "/v1/nowhere", "/v1/models/", "/docs/assets/none.js"])
def test_an_unknown_path_is_not_found(http: httpx2.Client, path: str) -> None:
    response = http.get(path)
    assert response.status_code == 404
    assert error_of(response)["code"] in ("not_found", "model_not_found")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/generate", "POST"),
        ("PUT", "/v1/chat/completions", "POST"),
        ("POST", "/health", "GET"),
    ],
)
def test_a_wrong_method_is_told_the_right_one(
    http: httpx2.Client, method: str, path: str, allowed: str
) -> None:
    response = http.request(method, path)
    assert response.status_code == 405
    assert response.headers["allow"] == allowed
    error = error_of(response)
    assert error["code"] == "method_not_allowed"
    assert allowed in error["message"]


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": ""},
        {"Content-Type": "application/json; charset=latin-1"},
        {"Content-Type": "application/json", "Content-Encoding": "gzip"},
    ],
)
def test_a_body_that_does_not_say_it_is_json_is_refused(
    http: httpx2.Client, headers: dict[str, str]
) -> None:
    response = http.post("/generate", content=b'{"prompt": "Hi"}', headers=headers)
    assert response.status_code == 415
    assert error_of(response)["code"] == "unsupported_media_type"


@pytest.mark.parametrize("kind", ["application/json", 'Application/JSON; Charset="UTF-8"'])
def test_json_may_be_announced_in_several_ways(http: httpx2.Client, kind: str) -> None:
    response = http.post("/generate", content=b'{"prompt": "Hi"}', headers={"Content-Type": kind})
    assert response.status_code == 200


def hostile_bodies() -> list[tuple[str, Any]]:
    wrong_bias = {str(number): CANARY for number in range(1000)}
    many_wrong: list[Any] = [{"role": 1, "content": CANARY}] * 4000
    return [
        ("/v1/chat/completions", {"model": MODEL, "messages": many_wrong}),
        ("/v1/chat/completions", {"model": MODEL, "messages": [], CANARY * 100: CANARY}),
        ("/v1/completions", {"model": MODEL, "prompt": [[CANARY] * 40] * 60}),
        ("/v1/completions", {"model": MODEL, "prompt": "a", "logit_bias": wrong_bias}),
        ("/v1/completions", {"model": CANARY, "prompt": "a"}),
        ("/v1/embeddings", {"model": MODEL, "input": [CANARY, *[1] * 9000]}),
        ("/generate", {"prompt": "a"} | {f"{CANARY} {n}": CANARY for n in range(4000)}),
        ("/generate", {"prompt": "a", "temperature": CANARY * 1000}),
        ("/generate", {"prompt": "a", "stop": ["😀" * 10_000]}),
        ("/detokenize", {"tokens": [CANARY] * 4000}),
    ]  # fmt: skip


@pytest.mark.parametrize(("path", "body"), hostile_bodies())
def test_a_hostile_body_gets_a_small_error_without_itself(
    http: httpx2.Client, path: str, body: Any
) -> None:
    response = http.post(path, json=body)
    assert response.status_code in (400, 404)
    error_of(response)
    assert CANARY not in response.text


def test_several_problems_are_told_at_once(http: httpx2.Client) -> None:
    error = error_of(http.post("/generate", json={"temperature": 9, "top_p": 9, "seed": "a"}))
    assert error["message"].count("`") == 8
    assert error["param"] == "temperature"


def test_a_long_list_of_problems_is_cut(http: httpx2.Client) -> None:
    body = {"prompt": "a"} | {f"field_{n}": 1 for n in range(25)}
    error = error_of(http.post("/generate", json=body))
    assert error["message"].endswith("15 further problems are not listed.")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Overloaded("256 requests wait already. Try again in a moment."), "server_overloaded"),
        (QueueTimeout("The request waited too long."), "queue_timeout"),
        (NotReady("The server is shutting down."), "not_ready"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_when_we_cannot_serve_now_the_client_is_told_to_retry(
    http: httpx2.Client, fake_server: FakeServer, error: ServiceError, code: str, stream: bool
) -> None:
    fake_server.service.start_error = error
    response = http.post("/generate", json={"prompt": "Hi", "stream": stream})
    assert response.status_code == 503
    assert response.headers["retry-after"] == "1"
    told = error_of(response)
    assert (told["code"], told["type"], told["message"]) == (code, "server_error", error.message)


@pytest.mark.parametrize("stream", [False, True])
def test_an_error_before_the_first_token_has_its_own_status(
    http: httpx2.Client, fake_server: FakeServer, stream: bool
) -> None:
    fake_server.service.script = lambda _: [QueueTimeout("The request waited too long.")]
    response = http.post("/generate", json={"prompt": "Hi", "stream": stream})
    assert response.status_code == 503
    assert error_of(response)["code"] == "queue_timeout"
    assert fake_server.service.has_closed.wait(WAIT_S)


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/embeddings", {"model": MODEL, "input": [[FORBIDDEN_TOKEN]]}, "input"),
        ("/detokenize", {"tokens": [FORBIDDEN_TOKEN]}, "tokens"),
    ],
)
def test_an_error_names_what_the_client_sent(
    http: httpx2.Client, path: str, body: Any, param: str
) -> None:
    response = http.post(path, json=body)
    assert response.status_code == 400
    assert error_of(response)["param"] == param


def test_a_failed_engine_is_a_server_error(http: httpx2.Client, fake_server: FakeServer) -> None:
    fake_server.service.start_error = EngineFailure("The answer could not be computed.")
    response = http.post("/generate", json={"prompt": "Hi"})
    assert response.status_code == 500
    assert "retry-after" not in response.headers
    assert error_of(response)["code"] == "engine_failure"


def test_what_nobody_expected_tells_nothing_of_itself(
    http: httpx2.Client, fake_server: FakeServer
) -> None:
    fake_server.service.start_error = RuntimeError(f"{CANARY} in /srv/appliance/engine.py")
    response = http.post("/generate", json={"prompt": "Hi"}, headers={"X-Request-Id": "mine"})
    assert response.status_code == 500
    assert error_of(response)["code"] == "internal_error"
    assert CANARY not in response.text
    assert "/srv" not in response.text
    assert response.headers["x-request-id"] == "mine"


def test_refusals_are_counted_by_code(http: httpx2.Client) -> None:
    http.post("/generate", json={})
    metrics = http.get("/metrics").text
    assert 'appliance_rejected_requests_total{reason="missing_required_parameter"}' in metrics


def test_errors_are_json_whatever_the_client_accepts(http: httpx2.Client) -> None:
    response = http.get("/nowhere", headers={"Accept": "text/html"})
    assert json.loads(response.content)["error"]["code"] == "not_found"
