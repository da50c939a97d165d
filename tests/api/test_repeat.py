"""The seed and the token ids in answers: where each face writes them, whole and streamed."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from appliance.completion import CompletionRequest, Delta
from tests.api.conftest import MODEL
from tests.api.events import read_events
from tests.api.fake_service import PROMPT_IDS, FakeService

GENERATE: dict[str, Any] = {"prompt": "Hi"}
COMPLETIONS: dict[str, Any] = {"model": MODEL, "prompt": "Hi"}
CHAT: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}]}
FACES = [
    pytest.param("/generate", GENERATE, id="generate"),
    pytest.param("/v1/completions", COMPLETIONS, id="completions"),
    pytest.param("/v1/chat/completions", CHAT, id="chat"),
]
WITH_USAGE = {"stream_options": {"include_usage": True}}
MOST_EXACT = 2**53  # a JSON number beyond it changes in JavaScript and in jq


def ask(http: httpx2.Client, path: str, body: dict[str, Any]) -> httpx2.Response:
    response = http.post(path, json=body)
    assert response.status_code == 200, response.text
    return response


def speaks_ids(request: CompletionRequest) -> list[Delta | Exception]:
    """Two pieces a choice, the ids of the second told apart by the choice."""
    return [
        delta
        for index in range(request.n)
        for delta in (
            Delta(index=index, text="a", token_ids=(7,)),
            Delta(index=index, text="b", token_ids=(8, index), finish_reason="stop"),
        )
    ]


@pytest.mark.parametrize(("path", "body"), FACES)
def test_a_given_seed_is_used_and_returned(
    http: httpx2.Client, service: FakeService, path: str, body: dict[str, Any]
) -> None:
    assert ask(http, path, body | {"seed": -(2**63)}).json()["seed"] == -(2**63)
    assert [request.seed for request in service.requests] == [-(2**63)]


@pytest.mark.parametrize(("path", "body"), FACES)
def test_a_drawn_seed_is_returned_and_survives_javascript(
    http: httpx2.Client, service: FakeService, path: str, body: dict[str, Any]
) -> None:
    seeds = [ask(http, path, body).json()["seed"] for _ in range(20)]
    assert seeds == [request.seed for request in service.requests]
    assert len(set(seeds)) == 20
    assert all(seed >= 0 and seed + 7 < MOST_EXACT for seed in seeds)  # of eight choices


def test_all_prompts_of_a_request_have_its_one_drawn_seed(
    http: httpx2.Client, service: FakeService
) -> None:
    answer = ask(http, "/v1/completions", COMPLETIONS | {"prompt": ["a", "b", "c"], "n": 2}).json()
    assert [request.seed for request in service.requests] == [answer["seed"]] * 3


def test_generates_stream_tells_the_seed_in_its_last_event(http: httpx2.Client) -> None:
    *texts, last, _ = read_events(ask(http, "/generate", GENERATE | {"stream": True, "seed": 5}))
    assert last["seed"] == 5
    assert not any("seed" in event for event in texts)


@pytest.mark.parametrize(("path", "body"), FACES[1:])
@pytest.mark.parametrize("options", [{}, WITH_USAGE], ids=["plain", "usage"])
def test_a_stream_tells_the_seed_where_a_choice_ends_and_in_its_last_event(
    http: httpx2.Client, path: str, body: dict[str, Any], options: dict[str, Any]
) -> None:
    request = body | options | {"stream": True, "n": 2, "seed": 5}
    *chunks, done = read_events(ask(http, path, request))
    assert done == "[DONE]"
    assert chunks[-1]["seed"] == 5
    for chunk in chunks:
        is_end = not chunk["choices"] or chunk["choices"][0]["finish_reason"] is not None
        assert chunk.get("seed") == (5 if is_end else None)


@pytest.mark.parametrize(("path", "body"), FACES)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("asked", [{}, {"return_token_ids": False}, {"return_token_ids": None}])
def test_without_asking_no_ids_come(
    http: httpx2.Client, path: str, body: dict[str, Any], stream: bool, asked: dict[str, Any]
) -> None:
    assert "token_ids" not in ask(http, path, body | asked | {"stream": stream}).text


@pytest.mark.parametrize(("path", "body"), FACES)
def test_asking_for_ids_reaches_the_service(
    http: httpx2.Client, service: FakeService, path: str, body: dict[str, Any]
) -> None:
    ask(http, path, body | {"return_token_ids": True})
    assert [request.returns_token_ids for request in service.requests] == [True]


def test_generate_tells_ids_beside_its_text(http: httpx2.Client, service: FakeService) -> None:
    service.script = speaks_ids
    body = GENERATE | {"return_token_ids": True}
    answer = ask(http, "/generate", body).json()
    assert (answer["prompt_token_ids"], answer["token_ids"]) == ([*PROMPT_IDS], [7, 8, 0])
    *events, _, _ = read_events(ask(http, "/generate", body | {"stream": True}))
    assert events == [
        {"text": "", "prompt_token_ids": [*PROMPT_IDS]},
        {"text": "a", "token_ids": [7]},
        {"text": "b", "finish_reason": "stop", "token_ids": [8, 0]},
    ]


def test_a_chat_tells_the_prompts_ids_once_and_each_choices(
    http: httpx2.Client, service: FakeService
) -> None:
    """As vLLM has it: the prompt's at the top, an answer's in its choice."""
    service.script = speaks_ids
    body = CHAT | {"return_token_ids": True, "n": 2}
    answer = ask(http, "/v1/chat/completions", body).json()
    assert answer["prompt_token_ids"] == [*PROMPT_IDS]
    assert [choice["token_ids"] for choice in answer["choices"]] == [[7, 8, 0], [7, 8, 1]]
    first, *chunks, _ = read_events(ask(http, "/v1/chat/completions", body | {"stream": True}))
    assert first["prompt_token_ids"] == [*PROMPT_IDS]
    assert not any("prompt_token_ids" in chunk for chunk in chunks)
    assert ids_by_choice(chunks) == {0: [7, 8, 0], 1: [7, 8, 1]}


@pytest.mark.parametrize("echo", [False, True])
def test_completions_tell_the_ids_of_each_choices_prompt(
    http: httpx2.Client, service: FakeService, echo: bool
) -> None:
    """As vLLM and SGLang have it: prompts differ, so that each choice has its own."""
    service.script = speaks_ids
    body = COMPLETIONS | {"prompt": ["a", "b"], "return_token_ids": True, "echo": echo}
    answer = ask(http, "/v1/completions", body).json()
    for choice in answer["choices"]:
        assert choice["prompt_token_ids"] == [*PROMPT_IDS]
        assert choice["token_ids"] == [7, 8, 0]
    *chunks, _ = read_events(ask(http, "/v1/completions", body | {"stream": True}))
    with_prompt = [
        chunk["choices"][0]["index"]
        for chunk in chunks
        if chunk["choices"][0].get("prompt_token_ids") == [*PROMPT_IDS]
    ]
    assert sorted(with_prompt) == [0, 1]
    assert ids_by_choice(chunks) == {0: [7, 8, 0], 1: [7, 8, 0]}


def test_ids_of_a_tool_call_come_though_it_has_no_text(
    http: httpx2.Client, service: FakeService
) -> None:
    service.script = lambda _: [Delta(token_ids=(7, 8), finish_reason="tool_calls")]
    *chunks, _ = read_events(
        ask(http, "/v1/chat/completions", CHAT | {"return_token_ids": True, "stream": True})
    )
    assert ids_by_choice(chunks) == {0: [7, 8]}


def ids_by_choice(chunks: list[Any]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for chunk in chunks:
        for choice in chunk["choices"]:
            found.setdefault(choice["index"], []).extend(choice.get("token_ids", []))
    return found
