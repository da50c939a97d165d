"""The official client drives the API; nothing here depends on what the model says."""

from __future__ import annotations

import json
import math
from typing import Any

import openai
import pytest

from tests.api.conftest import LiveServer

QUESTION: Any = [{"role": "user", "content": "What is the weather in Oslo?"}]
WEATHER_TOOL: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
CITY_FORMAT: Any = {
    "type": "json_schema",
    "json_schema": {"name": "city", "schema": WEATHER_TOOL["function"]["parameters"]},
}


def test_the_model_is_listed_and_found(client: openai.OpenAI, live_server: LiveServer) -> None:
    [model] = client.models.list()
    assert model.id == live_server.model
    assert client.models.retrieve(live_server.model) == model


def test_a_chat_is_answered(client: openai.OpenAI, live_server: LiveServer) -> None:
    answer = client.chat.completions.create(
        model=live_server.model, messages=QUESTION, max_completion_tokens=8
    )
    [choice] = answer.choices
    assert choice.message.role == "assistant"
    assert choice.message.content
    assert choice.finish_reason in ("stop", "length")
    assert answer.id.startswith("chatcmpl-")
    assert answer.model == live_server.model
    assert (answer.system_fingerprint or "").startswith("fp_")
    assert answer.usage is not None
    assert answer.usage.total_tokens == (
        answer.usage.prompt_tokens + answer.usage.completion_tokens
    )


def test_an_answer_can_be_sent_back(client: openai.OpenAI, live_server: LiveServer) -> None:
    first = client.chat.completions.create(model=live_server.model, messages=QUESTION, max_tokens=8)
    messages = [*QUESTION, first.choices[0].message, {"role": "user", "content": "And now?"}]
    second = client.chat.completions.create(
        model=live_server.model, messages=messages, max_tokens=8
    )
    assert second.choices[0].message.role == "assistant"


def test_a_streamed_chat_tells_role_text_end_and_usage(
    client: openai.OpenAI, live_server: LiveServer
) -> None:
    stream = client.chat.completions.create(
        model=live_server.model,
        messages=QUESTION,
        max_tokens=8,
        stream=True,
        stream_options={"include_usage": True},
    )
    *chunks, last = list(stream)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert all(chunk.usage is None for chunk in chunks)
    reasons = [chunk.choices[0].finish_reason for chunk in chunks]
    assert reasons[-1] in ("stop", "length")
    assert not any(reasons[:-1])
    assert last.choices == []
    assert last.usage is not None
    assert last.usage.completion_tokens > 0
    assert len({chunk.id for chunk in [*chunks, last]}) == 1


def test_the_clients_own_stream_helper_understands_us(
    client: openai.OpenAI, live_server: LiveServer
) -> None:
    with client.chat.completions.stream(
        model=live_server.model, messages=QUESTION, temperature=0
    ) as stream:
        completion = stream.get_final_completion()
    assert completion.choices[0].message.content


@pytest.mark.parametrize(
    "choice", ["required", {"type": "function", "function": {"name": "get_weather"}}]
)
def test_a_tool_is_called(client: openai.OpenAI, live_server: LiveServer, choice: Any) -> None:
    answer = client.chat.completions.create(
        model=live_server.model, messages=QUESTION, tools=[WEATHER_TOOL], tool_choice=choice
    )
    calls: Any = answer.choices[0].message.tool_calls
    assert calls[0].type == "function"
    assert calls[0].function.name == "get_weather"
    assert set(json.loads(calls[0].function.arguments)) == {"city"}
    assert answer.choices[0].finish_reason == "tool_calls"


def test_a_tools_result_can_be_sent_back(client: openai.OpenAI, live_server: LiveServer) -> None:
    first = client.chat.completions.create(
        model=live_server.model, messages=QUESTION, tools=[WEATHER_TOOL], tool_choice="required"
    )
    message: Any = first.choices[0].message
    results = [
        {"role": "tool", "tool_call_id": call.id, "content": "rain"} for call in message.tool_calls
    ]
    messages = [*QUESTION, message, *results]
    second = client.chat.completions.create(
        model=live_server.model, messages=messages, tools=[WEATHER_TOOL], max_tokens=8
    )
    assert second.choices[0].message.role == "assistant"


def test_a_streamed_tool_call_arrives_whole(client: openai.OpenAI, live_server: LiveServer) -> None:
    with client.chat.completions.stream(
        model=live_server.model, messages=QUESTION, tools=[WEATHER_TOOL], tool_choice="required"
    ) as stream:
        completion = stream.get_final_completion()
    calls: Any = completion.choices[0].message.tool_calls
    assert calls[0].function.name == "get_weather"
    assert set(json.loads(calls[0].function.arguments)) == {"city"}


def test_an_answer_fits_its_schema(client: openai.OpenAI, live_server: LiveServer) -> None:
    answer = client.chat.completions.create(
        model=live_server.model, messages=QUESTION, response_format=CITY_FORMAT
    )
    assert set(json.loads(answer.choices[0].message.content or "")) == {"city"}


def test_an_answer_is_a_json_object(client: openai.OpenAI, live_server: LiveServer) -> None:
    answer = client.chat.completions.create(
        model=live_server.model,
        messages=[{"role": "user", "content": "Answer in JSON: where is Oslo?"}],
        response_format={"type": "json_object"},
        temperature=0,
    )
    if answer.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(answer.choices[0].message.content or ""), dict)


def test_chat_logprobs_belong_to_the_text(client: openai.OpenAI, live_server: LiveServer) -> None:
    answer = client.chat.completions.create(
        model=live_server.model, messages=QUESTION, max_tokens=4, logprobs=True, top_logprobs=3
    )
    [choice] = answer.choices
    assert choice.logprobs is not None
    assert choice.logprobs.content
    for entry in choice.logprobs.content:
        assert entry.logprob <= 0
        assert len(entry.top_logprobs) == 3
        assert entry.bytes is not None
    text = b"".join(bytes(entry.bytes or ()) for entry in choice.logprobs.content)
    assert text.decode("utf-8", "replace") == choice.message.content


def test_streamed_logprobs_are_the_same_shape(
    client: openai.OpenAI, live_server: LiveServer
) -> None:
    stream = client.chat.completions.create(
        model=live_server.model, messages=QUESTION, max_tokens=4, logprobs=True, stream=True
    )
    entries = [
        entry
        for chunk in stream
        for entry in (chunk.choices[0].logprobs.content or [] if chunk.choices[0].logprobs else [])
    ]
    assert entries
    assert all(math.isfinite(entry.logprob) for entry in entries)


def test_n_answers_come_back(client: openai.OpenAI, live_server: LiveServer) -> None:
    answer = client.chat.completions.create(
        model=live_server.model, messages=QUESTION, max_tokens=4, n=3
    )
    assert [choice.index for choice in answer.choices] == [0, 1, 2]


def test_n_streamed_answers_each_end_once(client: openai.OpenAI, live_server: LiveServer) -> None:
    stream = client.chat.completions.create(
        model=live_server.model, messages=QUESTION, max_tokens=4, n=3, stream=True
    )
    ended = [choice.index for chunk in stream for choice in chunk.choices if choice.finish_reason]
    assert sorted(ended) == [0, 1, 2]


def test_prompts_are_continued_in_order(client: openai.OpenAI, live_server: LiveServer) -> None:
    answer = client.completions.create(
        model=live_server.model, prompt=["Once", "upon"], max_tokens=4, n=2
    )
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert answer.id.startswith("cmpl-")


def test_a_streamed_completion_adds_up(client: openai.OpenAI, live_server: LiveServer) -> None:
    options: Any = {
        "model": live_server.model,
        "prompt": ["Once upon a time", "Then"],
        "max_tokens": 4,
        "temperature": 0,
    }
    whole = client.completions.create(**options)
    texts = ["", ""]
    for chunk in client.completions.create(**options, stream=True):
        texts[chunk.choices[0].index] += chunk.choices[0].text
    assert texts == [choice.text for choice in whole.choices]


def test_echo_scores_the_prompt_without_new_text(
    client: openai.OpenAI, live_server: LiveServer
) -> None:
    answer = client.completions.create(
        model=live_server.model, prompt="Once upon a time", max_tokens=0, echo=True, logprobs=1
    )
    [choice] = answer.choices
    assert choice.text == "Once upon a time"
    logprobs: Any = choice.logprobs
    assert "".join(logprobs.tokens) == choice.text
    assert logprobs.token_logprobs[0] is None
    assert all(logprob <= 0 for logprob in logprobs.token_logprobs[1:])
    assert logprobs.text_offset[0] == 0
    lengths = {len(entries) for entries in logprobs.model_dump().values()}
    assert lengths == {len(logprobs.tokens)}


def test_texts_are_embedded(client: openai.OpenAI, live_server: LiveServer) -> None:
    by_default = client.embeddings.create(model=live_server.model, input=["a cat", "a dog"])
    as_floats = client.embeddings.create(
        model=live_server.model, input=["a cat", "a dog"], encoding_format="float"
    )
    assert [entry.index for entry in by_default.data] == [0, 1]
    for base64_entry, float_entry in zip(by_default.data, as_floats.data, strict=True):
        assert base64_entry.embedding == pytest.approx(float_entry.embedding, abs=1e-5)
        assert math.hypot(*float_entry.embedding) == pytest.approx(1, abs=1e-3)


def test_extensions_are_taken(client: openai.OpenAI, live_server: LiveServer) -> None:
    answer = client.chat.completions.create(
        model=live_server.model,
        messages=QUESTION,
        max_tokens=4,
        extra_body={"top_k": 5, "min_p": 0.1, "repetition_penalty": 1.1},
    )
    assert answer.choices


def test_an_unknown_model_is_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="gpt-9", messages=QUESTION)
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


def test_a_bad_value_is_a_bad_request(client: openai.OpenAI, live_server: LiveServer) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=live_server.model, messages=QUESTION, temperature=3)
    assert (caught.value.code, caught.value.param) == ("invalid_value", "temperature")
    assert "`temperature` is 3; it must be at most 2" in caught.value.message


def test_what_we_cannot_honour_is_refused_by_name(
    client: openai.OpenAI, live_server: LiveServer
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model=live_server.model, prompt="a", suffix="b")
    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", "suffix")
