"""POST /v1/completions: prompts of all kinds, echo, log-probabilities, streams."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest

from appliance.completion import CompletionRequest, Delta
from appliance.errors import EngineFailure, Overloaded
from tests.api.conftest import MODEL, WAIT_S, FakeServer, become_ready, make_identity
from tests.api.events import read_events
from tests.api.fake_service import FakeService, say

PATH = "/v1/completions"


def ask(http: httpx2.Client, **fields: Any) -> httpx2.Response:
    response = http.post(PATH, json={"model": MODEL, "prompt": "Once"} | fields)
    assert response.status_code == 200, response.text
    return response


def by_prompt(request: CompletionRequest) -> list[Delta | Exception]:
    """Each answer names its prompt and its number."""
    return [
        delta
        for index in range(request.n)
        for delta in say(f"{request.prompt}", f"/{index}", index=index)
    ]


def test_a_whole_answer_has_the_shape_of_openais(http: httpx2.Client) -> None:
    answer = ask(http, seed=4).json()
    assert answer["id"].startswith("cmpl-")
    del answer["id"], answer["created"]
    assert answer == {
        "object": "text_completion",
        "model": MODEL,
        "system_fingerprint": make_identity().fingerprint,
        "choices": [
            {"index": 0, "text": "Hello there!", "logprobs": None, "finish_reason": "stop"}
        ],
        "usage": {
            "prompt_tokens": 5,
            "completion_tokens": 3,
            "total_tokens": 8,
            "prompt_tokens_details": {"cached_tokens": 2},
        },
        "seed": 4,
    }


def test_a_stream_has_the_shape_of_openais(http: httpx2.Client) -> None:
    events = read_events(ask(http, stream=True, stream_options={"include_usage": True}))
    *chunks, usage, done = events
    assert [chunk["choices"][0]["text"] for chunk in chunks] == ["Hello", " there", "!"]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None, None, "stop"]
    assert all(chunk["usage"] is None for chunk in chunks)
    assert usage["usage"]["total_tokens"] == 8
    assert done == "[DONE]"


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a", ["a"]),
        ("", [""]),
        (["a", "b"], ["a", "b"]),
        ([1, 2], [(1, 2)]),
        ([0], [(0,)]),
        ([[1, 2], [3]], [(1, 2), (3,)]),
    ],
)
def test_prompts_come_in_four_kinds(
    http: httpx2.Client, service: FakeService, prompt: Any, expected: Any
) -> None:
    ask(http, prompt=prompt)
    assert [request.prompt for request in service.requests] == expected


def test_sixteen_new_tokens_are_the_default(http: httpx2.Client, service: FakeService) -> None:
    ask(http)
    ask(http, max_tokens=None)
    ask(http, max_tokens=3)
    assert [request.max_new_tokens for request in service.requests] == [16, 16, 3]


@pytest.mark.parametrize("stream", [False, True])
def test_choices_are_numbered_prompt_by_prompt(
    http: httpx2.Client, service: FakeService, stream: bool
) -> None:
    service.script = by_prompt
    response = ask(http, prompt=["a", "b"], n=2, stream=stream)
    texts = [""] * 4
    answers = read_events(response)[:-1] if stream else [response.json()]
    for answer in answers:
        for choice in answer["choices"]:
            texts[choice["index"]] += choice["text"]
    assert texts == ["a/0", "a/1", "b/0", "b/1"]


def test_the_usage_of_all_prompts_is_added_up(http: httpx2.Client) -> None:
    expected = {
        "prompt_tokens": 10,
        "completion_tokens": 6,
        "total_tokens": 16,
        "prompt_tokens_details": {"cached_tokens": 4},
    }
    assert ask(http, prompt=["a", "b"]).json()["usage"] == expected
    options = {"stream": True, "stream_options": {"include_usage": True}}
    assert read_events(ask(http, prompt=["a", "b"], **options))[-2]["usage"] == expected


@pytest.mark.parametrize("stream", [False, True])
def test_if_one_prompt_is_refused_all_are_dropped(
    http: httpx2.Client, service: FakeService, stream: bool
) -> None:
    service.hold = True

    def script(request: CompletionRequest) -> list[Delta | Exception]:
        if request.prompt == "b":
            service.start_error = Overloaded("256 requests wait already.")
        return []

    service.script = script
    body = {"model": MODEL, "prompt": ["a", "b", "c"], "stream": stream}
    assert http.post(PATH, json=body).status_code == 503
    assert service.has_closed.wait(WAIT_S)


def test_logprobs_are_four_lists(http: httpx2.Client, service: FakeService) -> None:
    [choice] = ask(http, logprobs=2).json()["choices"]
    assert choice["logprobs"] == {
        "tokens": ["Hello", " there", "!"],
        "token_logprobs": [-0.5, -0.5, -0.5],
        "top_logprobs": [
            {"Hello0": -0.5, "Hello1": -1.5, "Hello": -0.5},
            {" there0": -0.5, " there1": -1.5, " there": -0.5},
            {"!0": -0.5, "!1": -1.5, "!": -0.5},
        ],
        "text_offset": [0, 5, 11],
    }
    assert service.requests[0].num_prompt_logprobs is None


def test_streamed_offsets_go_on_from_chunk_to_chunk(http: httpx2.Client) -> None:
    chunks = read_events(ask(http, logprobs=0, stream=True))[:-1]
    offsets = [chunk["choices"][0]["logprobs"]["text_offset"] for chunk in chunks]
    assert offsets == [[0], [5], [11]]


def test_echo_puts_the_prompt_in_front(http: httpx2.Client, service: FakeService) -> None:
    assert ask(http, echo=True).json()["choices"][0]["text"] == "OnceHello there!"
    chunks = read_events(ask(http, echo=True, stream=True))[:-1]
    assert [chunk["choices"][0]["text"] for chunk in chunks] == ["Once", "Hello", " there", "!"]
    assert [request.num_prompt_logprobs for request in service.requests] == [None, None]


def test_echo_scores_the_prompt(http: httpx2.Client, service: FakeService) -> None:
    """What lm-evaluation-harness asks: how likely is this text, with nothing new."""
    [choice] = ask(http, echo=True, logprobs=1, max_tokens=0).json()["choices"]
    assert choice["text"] == "Once"
    assert choice["finish_reason"] == "length"
    assert choice["logprobs"] == {
        "tokens": ["O", "n", "c", "e"],
        "token_logprobs": [None, -1.5, -1.5, -1.5],
        "top_logprobs": [None, *({f"{c}0": -1.5, c: -1.5} for c in "nce")],
        "text_offset": [0, 1, 2, 3],
    }
    assert service.requests[0].max_new_tokens == 0
    assert service.requests[0].num_prompt_logprobs == 1


def test_echo_of_token_ids_is_their_text(http: httpx2.Client) -> None:
    prompts = [[ord("h"), ord("i")], [ord("y"), ord("o")]]
    choices = ask(http, prompt=prompts, echo=True, logprobs=1).json()["choices"]
    assert [choice["text"] for choice in choices] == ["hiHello there!", "yoHello there!"]
    assert choices[1]["logprobs"]["tokens"] == ["y", "o", "Hello", " there", "!"]
    assert choices[1]["logprobs"]["text_offset"] == [0, 1, 2, 7, 13]


def test_streamed_echo_scores_the_prompt_first(http: httpx2.Client) -> None:
    chunks = read_events(ask(http, prompt=["ab", "cd"], echo=True, logprobs=1, stream=True))[:-1]
    choices = [chunk["choices"][0] for chunk in chunks]
    first, second, *_ = [choice for choice in choices if choice["index"] == 1]
    assert first["text"] == "cd"
    assert first["logprobs"]["tokens"] == ["c", "d"]
    assert second["logprobs"]["text_offset"] == [2]


def test_all_prompts_of_a_stream_go_on_at_the_same_time(
    http: httpx2.Client, service: FakeService
) -> None:
    """The second ends though the first never does."""

    def script(request: CompletionRequest) -> list[Delta | Exception]:
        return list(say("slow", finish=False) if request.prompt == "a" else say("quick", "!"))

    service.script, service.hold = script, True
    body = {"model": MODEL, "prompt": ["a", "b"], "stream": True}
    with http.stream("POST", PATH, json=body) as response:
        lines = (line for line in response.iter_lines() if line)
        choices = [json.loads(next(lines)[6:])["choices"][0] for _ in range(3)]
    assert {(choice["index"], choice["text"]) for choice in choices} == {
        (0, "slow"), (1, "quick"), (1, "!"),
    }  # fmt: skip


def test_an_error_in_one_prompt_of_a_stream_ends_all(
    http: httpx2.Client, service: FakeService
) -> None:
    def script(request: CompletionRequest) -> list[Delta | Exception]:
        first: list[Delta | Exception] = [*say("Hello", finish=False)]
        return first if request.prompt == "a" else [*first, EngineFailure("No answer.")]

    service.script = script
    *_, error = read_events(ask(http, prompt=["b", "a"], stream=True))
    assert error["error"]["code"] == "engine_failure"
    assert service.has_closed.wait(WAIT_S)


def test_more_answers_than_ever_fit_are_refused(
    fake_server: FakeServer, monkeypatch: pytest.MonkeyPatch, http: httpx2.Client
) -> None:
    """Not as overload, which would end if the client waited."""
    monkeypatch.setattr(fake_server.state, "models", fake_server.state.models)
    become_ready(fake_server.state, fake_server.service, max_choices=2)
    ask(http, n=2)
    ask(http, prompt=["a", "b"])
    cases: list[tuple[str, dict[str, Any], str, str]] = [
        (PATH, {"prompt": "a", "n": 3}, "n", "`n` is 3"),
        (PATH, {"prompt": ["a", "b"], "n": 2}, "n", "4 completions"),
        (PATH, {"prompt": ["a", "b", "c"]}, "prompt", "3 completions"),
        ("/v1/embeddings", {"input": ["a", "b", "c"]}, "input", "at most 2"),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}], "n": 3},
         "n", "at most 2"),
    ]  # fmt: skip
    for path, fields, param, text in cases:
        response = http.post(path, json={"model": MODEL, **fields})
        assert response.status_code == 400
        assert response.json()["error"]["param"] == param
        assert text in response.json()["error"]["message"]
