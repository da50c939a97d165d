"""POST /v1/chat/completions: what reaches the service, and the bytes that come back."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from appliance.completion import ChatPrompt, Delta, OutputFormat, ToolCall, ToolChoice
from appliance.errors import EngineFailure
from tests.api.conftest import MODEL, make_identity
from tests.api.events import read_events
from tests.api.fake_service import FakeService, say, token

PATH = "/v1/chat/completions"
USER = {"role": "user", "content": "Hi"}
TOOL = {
    "type": "function",
    "function": {"name": "f", "description": "d", "parameters": {"type": "object"}},
}

USAGE = {
    "prompt_tokens": 5,
    "completion_tokens": 3,
    "total_tokens": 8,
    "prompt_tokens_details": {"cached_tokens": 2},
}


def ask(http: httpx2.Client, **fields: Any) -> httpx2.Response:
    response = http.post(PATH, json={"model": MODEL, "messages": [USER]} | fields)
    assert response.status_code == 200, response.text
    return response


def prompt_of(service: FakeService) -> ChatPrompt:
    prompt = service.requests[-1].prompt
    assert isinstance(prompt, ChatPrompt)
    return prompt


def calls(*names: str) -> list[Delta | Exception]:
    made = tuple(
        ToolCall(call_id=f"call_{number}", name=name, arguments="{}")
        for number, name in enumerate(names)
    )
    return [
        *(Delta(tool_calls=(call,)) for call in made),
        Delta(finish_reason="tool_calls"),
    ]


def test_a_whole_answer_has_the_shape_of_openais(http: httpx2.Client) -> None:
    answer = ask(http, seed=4).json()
    assert answer["id"].startswith("chatcmpl-")
    assert isinstance(answer["created"], int)
    del answer["id"], answer["created"]
    assert answer == {
        "object": "chat.completion",
        "model": MODEL,
        "system_fingerprint": make_identity().fingerprint,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello there!", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": USAGE,
        "seed": 4,
    }


def test_a_stream_has_the_shape_of_openais(http: httpx2.Client) -> None:
    *chunks, done = read_events(ask(http, stream=True))
    assert done == "[DONE]"
    deltas = [
        {"role": "assistant", "content": "", "refusal": None},
        {"content": "Hello"},
        {"content": " there"},
        {"content": "!"},
    ]
    for chunk, delta in zip(chunks, deltas, strict=True):
        assert chunk["object"] == "chat.completion.chunk"
        assert chunk["system_fingerprint"] == make_identity().fingerprint
        reason = "stop" if delta == deltas[-1] else None
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        assert chunk["choices"] == [choice]
        assert "usage" not in chunk


def test_usage_comes_last_and_is_null_before(http: httpx2.Client) -> None:
    *chunks, last, _ = read_events(ask(http, stream=True, stream_options={"include_usage": True}))
    assert all(chunk["usage"] is None for chunk in chunks)
    assert last["choices"] == []
    assert last["usage"] == USAGE
    assert last["id"] == chunks[0]["id"]


def test_messages_reach_the_template_plain(http: httpx2.Client, service: FakeService) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    ask(
        http,
        messages=[
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "name": "ann", "content": [
                {"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "1", "content": "rain"},
            {"role": "assistant", "content": "It rains.", "refusal": None, "annotations": [],
             "audio": None, "function_call": None, "tool_calls": None},
        ],
    )  # fmt: skip
    assert list(prompt_of(service).messages) == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "a\nb", "name": "ann"},
        {"role": "assistant", "content": "", "tool_calls": [
            {"id": "1", "type": "function", "function": {"name": "f", "arguments": {"a": 1}}}]},
        {"role": "tool", "content": "rain", "tool_call_id": "1"},
        {"role": "assistant", "content": "It rains."},
    ]  # fmt: skip


def test_sampling_reaches_the_service(http: httpx2.Client, service: FakeService) -> None:
    ask(
        http,
        max_completion_tokens=9,
        n=2,
        presence_penalty=1.5,
        frequency_penalty=-1,
        logit_bias={"17": -100, "4": 0.5},
        seed=3,
        stop="x",
        top_p=0.5,
        logprobs=True,
        top_logprobs=4,
    )
    [request] = service.requests
    assert (request.max_new_tokens, request.max_total_tokens, request.n) == (9, None, 2)
    assert (request.presence_penalty, request.frequency_penalty) == (1.5, -1)
    assert request.logit_bias == {17: -100, 4: 0.5}
    assert (request.seed, request.stop, request.top_p) == (3, ("x",), 0.5)
    assert (request.num_logprobs, request.num_prompt_logprobs) == (4, None)


@pytest.mark.parametrize(
    ("fields", "limit"),
    [({}, None), ({"max_tokens": 7}, 7), ({"max_tokens": 7, "max_completion_tokens": 7}, 7)],
)
def test_the_limit_has_two_names(
    http: httpx2.Client, service: FakeService, fields: dict[str, int], limit: int | None
) -> None:
    ask(http, **fields)
    assert service.requests[0].max_new_tokens == limit


@pytest.mark.parametrize(
    ("logprobs", "wanted"), [({}, None), ({"logprobs": True}, 0), ({"logprobs": False}, None)]
)
def test_logprobs_are_made_only_when_asked_for(
    http: httpx2.Client, service: FakeService, logprobs: dict[str, bool], wanted: int | None
) -> None:
    ask(http, **logprobs)
    assert service.requests[0].num_logprobs == wanted


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, OutputFormat()),
        ({"type": "text"}, OutputFormat()),
        ({"type": "json_object"}, OutputFormat(kind="json_object")),
        (
            {
                "type": "json_schema",
                "json_schema": {"name": "a", "schema": {"type": "null"}, "strict": True},
            },
            OutputFormat(kind="json_schema", schema={"type": "null"}),
        ),
    ],
)
def test_the_output_format_reaches_the_service(
    http: httpx2.Client, service: FakeService, given: Any, expected: OutputFormat
) -> None:
    ask(http, response_format=given)
    assert service.requests[0].output == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, ToolChoice(kind="auto")),
        ("none", ToolChoice(kind="none")),
        ("required", ToolChoice(kind="required")),
        ({"type": "function", "function": {"name": "f"}}, ToolChoice(kind="named", name="f")),
    ],
)
def test_tools_reach_the_service(
    http: httpx2.Client, service: FakeService, given: Any, expected: ToolChoice
) -> None:
    ask(http, tools=[TOOL], tool_choice=given)
    prompt = prompt_of(service)
    assert prompt.tool_choice == expected
    [tool] = prompt.tools
    assert (tool.name, tool.description, tool.parameters) == ("f", "d", {"type": "object"})


def test_a_tool_without_parameters_takes_none(http: httpx2.Client, service: FakeService) -> None:
    ask(http, tools=[{"type": "function", "function": {"name": "f"}}])
    [tool] = prompt_of(service).tools
    assert tool.parameters == {"type": "object", "properties": {}}


def test_tool_calls_come_back(http: httpx2.Client, service: FakeService) -> None:
    service.script = lambda _: calls("f", "g")
    [choice] = ask(http, tools=[TOOL]).json()["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    assert choice["message"]["tool_calls"] == [
        {"id": "call_0", "type": "function", "function": {"name": "f", "arguments": "{}"}},
        {"id": "call_1", "type": "function", "function": {"name": "g", "arguments": "{}"}},
    ]


def test_streamed_tool_calls_are_numbered(http: httpx2.Client, service: FakeService) -> None:
    service.script = lambda _: calls("f", "g")
    _, *chunks, _ = read_events(ask(http, tools=[TOOL], stream=True))
    made = [call for chunk in chunks for call in chunk["choices"][0]["delta"].get("tool_calls", [])]
    assert [(call["index"], call["function"]["name"]) for call in made] == [(0, "f"), (1, "g")]
    assert chunks[-1]["choices"][0]["delta"] == {}
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


@pytest.mark.parametrize("stream", [False, True])
def test_one_tool_call_is_kept_if_parallel_ones_are_unwanted(
    http: httpx2.Client, service: FakeService, stream: bool
) -> None:
    service.script = lambda _: calls("f", "g")
    text = ask(http, tools=[TOOL], parallel_tool_calls=False, stream=stream).text
    assert '"call_0"' in text
    assert '"call_1"' not in text


def test_logprobs_come_back(http: httpx2.Client, service: FakeService) -> None:
    service.script = lambda _: [
        Delta(text="é", tokens=(token("é", -1e9, 1),), finish_reason="stop")
    ]
    [choice] = ask(http, logprobs=True, top_logprobs=1).json()["choices"]
    assert choice["logprobs"] == {
        "content": [
            {
                "token": "é",
                "logprob": -9999.0,
                "bytes": [195, 169],
                "top_logprobs": [{"token": "é0", "logprob": -9999.0, "bytes": [63]}],
            }
        ],
        "refusal": None,
    }


def test_a_token_whose_text_is_held_back_still_tells_its_logprob(
    http: httpx2.Client, service: FakeService
) -> None:
    service.script = lambda _: [Delta(tokens=(token("a"),)), *say("ab")]
    _, first, *_ = read_events(ask(http, logprobs=True, stream=True))
    assert first["choices"][0]["delta"] == {}
    assert first["choices"][0]["logprobs"]["content"][0]["token"] == "a"


def test_each_of_n_streamed_answers_has_its_role_and_end(http: httpx2.Client) -> None:
    *chunks, _ = read_events(ask(http, n=2, stream=True))
    choices = [chunk["choices"][0] for chunk in chunks]
    assert [c["index"] for c in choices if "role" in c["delta"]] == [0, 1]
    assert [c["index"] for c in choices if c["finish_reason"]] == [0, 1]


def test_a_stream_that_fails_is_not_done(http: httpx2.Client, service: FakeService) -> None:
    service.script = lambda _: [*say("Hello", finish=False), EngineFailure("It broke.")]
    events = read_events(ask(http, stream=True))
    assert events[-1]["error"]["message"] == "It broke."


HARMLESS: list[dict[str, Any]] = [
    {"user": "ann"},
    {"safety_identifier": "a"},
    {"prompt_cache_key": "a"},
    {"metadata": {"a": "b"}},
    {"store": False},
    {"service_tier": "auto"},
    {"service_tier": "default"},
    {"modalities": ["text"]},
    {"parallel_tool_calls": True},
    {"tool_choice": "none"},
    {"tool_choice": "auto"},
    {"functions": None, "function_call": None, "audio": None, "reasoning_effort": None},
    {"stream": True, "stream_options": {"include_obfuscation": False}},
    dict.fromkeys(("n", "temperature", "stop", "tools", "seed", "logit_bias", "stream", "store")),
]


@pytest.mark.parametrize("fields", HARMLESS, ids=str)
def test_what_changes_nothing_is_accepted(
    http: httpx2.Client, service: FakeService, fields: dict[str, Any]
) -> None:
    ask(http, **fields)
    [request] = service.requests
    assert (request.n, request.temperature, request.stop) == (1, None, ())


def test_computed_prompts_are_shared_by_those_with_the_same_key(
    http: httpx2.Client, service: FakeService
) -> None:
    for key in ("one", "one", "another"):
        body = {"model": MODEL, "messages": [USER]}
        http.post(PATH, json=body, headers={"Authorization": f"Bearer {key}"})
    ask(http)
    salts = [request.cache_salt for request in service.requests]
    assert salts[0] == salts[1]
    assert len(set(salts)) == 3
    assert b"one" not in salts[0]
