"""POST /generate: what reaches the service, what comes back, whole and streamed."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from appliance.completion import OutputFormat
from appliance.errors import EngineFailure
from tests.api.conftest import MODEL, WAIT_S
from tests.api.events import read_events
from tests.api.fake_service import FakeService, say

IDENTITY = {
    "weights": "a" * 12,
    "tokenizer": "b" * 12,
    "template": None,
    "server": "c" * 12,
    "generation": "7",
}
USAGE = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}


def test_the_answer_is_the_continuation_and_what_made_it(http: httpx2.Client) -> None:
    body = {"prompt": "Once upon a time", "max_length": 40, "temperature": 0.7, "seed": 4}
    assert http.post("/generate", json=body).json() == {
        "generated_text": "Hello there!",
        "finish_reason": "stop",
        "usage": USAGE,
        "seed": 4,
        "model": MODEL,
        "identity": IDENTITY,
    }


def test_the_full_text_begins_with_the_prompt(http: httpx2.Client) -> None:
    body = {"prompt": "Say: ", "return_full_text": True}
    assert http.post("/generate", json=body).json()["generated_text"] == "Say: Hello there!"
    [first, *_] = read_events(http.post("/generate", json=body | {"stream": True}))
    assert first == {"text": "Say: "}


def test_a_stream_is_text_then_provenance_then_done(http: httpx2.Client) -> None:
    events = read_events(http.post("/generate", json={"prompt": "Hi", "stream": True, "seed": 4}))
    assert events == [
        {"text": "Hello"},
        {"text": " there"},
        {"text": "!", "finish_reason": "stop"},
        {"usage": USAGE, "seed": 4, "model": MODEL, "identity": IDENTITY},
        "[DONE]",
    ]


def test_every_parameter_reaches_the_service(http: httpx2.Client, service: FakeService) -> None:
    body: dict[str, Any] = {
        "prompt": "Hi",
        "max_length": 100,
        "max_new_tokens": 50,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 40,
        "min_p": 0.05,
        "repetition_penalty": 1.2,
        "seed": -(2**63),
        "stop": ["a", "b"],
    }
    assert http.post("/generate", json=body).status_code == 200
    [request] = service.requests
    assert (request.max_total_tokens, request.max_new_tokens) == (100, 50)
    assert (request.temperature, request.top_p, request.top_k) == (0.5, 0.9, 40)
    assert (request.min_p, request.repetition_penalty) == (0.05, 1.2)
    assert (request.seed, request.stop) == (-(2**63), ("a", "b"))
    assert (request.n, request.output) == (1, OutputFormat())


@pytest.mark.parametrize("value", [{}, {"temperature": None, "top_k": None, "stop": None}])
def test_what_is_left_out_is_the_models_to_decide(
    http: httpx2.Client, service: FakeService, value: dict[str, None]
) -> None:
    assert http.post("/generate", json={"prompt": "Hi"} | value).status_code == 200
    [request] = service.requests
    assert request.temperature is None
    assert request.top_k is None
    assert request.stop == ()


def test_without_a_limit_it_is_256_tokens_or_what_the_context_holds(
    http: httpx2.Client, service: FakeService
) -> None:
    http.post("/generate", json={"prompt": "Hi"})
    http.post("/generate", json={"prompt": "Hi", "max_length": 10})
    first, second = service.requests
    assert (first.max_new_tokens, first.max_total_tokens) == (None, None)
    assert (second.max_new_tokens, second.max_total_tokens) == (None, 10)
    assert first.default_new_tokens == second.default_new_tokens == 256


def test_a_stream_that_fails_ends_in_an_error_and_is_not_done(
    http: httpx2.Client, service: FakeService
) -> None:
    service.script = lambda _: [*say("Hello", finish=False), EngineFailure("It broke.")]
    text, error = read_events(http.post("/generate", json={"prompt": "Hi", "stream": True}))
    assert text == {"text": "Hello"}
    assert error["error"]["code"] == "engine_failure"
    assert service.has_closed.wait(WAIT_S)


def test_a_stream_that_fails_unexpectedly_tells_nothing_of_itself(
    http: httpx2.Client, service: FakeService
) -> None:
    service.script = lambda _: [*say("Hello", finish=False), RuntimeError("canary")]
    *_, error = read_events(http.post("/generate", json={"prompt": "Hi", "stream": True}))
    assert error["error"]["code"] == "internal_error"
    assert "canary" not in str(error)


@pytest.mark.parametrize("text", ["a\nb\r\nc", "\u2028\u2029\x85", "😀", '"\\', "data: [DONE]\n\n"])
def test_no_text_can_break_the_stream(http: httpx2.Client, service: FakeService, text: str) -> None:
    service.script = lambda _: say(text)
    response = http.post("/generate", json={"prompt": "Hi", "stream": True})
    assert response.content.isascii()
    assert read_events(response)[0]["text"] == text


def test_a_finished_stream_is_closed(http: httpx2.Client, service: FakeService) -> None:
    read_events(http.post("/generate", json={"prompt": "Hi", "stream": True}))
    assert service.has_closed.wait(WAIT_S)


def test_an_answer_without_a_token_is_an_answer(http: httpx2.Client, service: FakeService) -> None:
    service.script = lambda _: say("")
    assert http.post("/generate", json={"prompt": "Hi"}).json()["generated_text"] == ""
    first, *_ = read_events(http.post("/generate", json={"prompt": "Hi", "stream": True}))
    assert first == {"text": "", "finish_reason": "stop"}
