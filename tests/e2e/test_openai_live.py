"""The official OpenAI client against the real server with the embedded model."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionToolParam

MODEL = "pebble"
WEATHER: ChatCompletionToolParam = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 20}, "age": {"enum": [3, 4, 5]}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


@pytest.fixture
def client(live_url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{live_url}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_the_model_is_listed(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [MODEL]


def test_a_completion_ends_at_its_limit_and_counts_tokens(client: openai.OpenAI) -> None:
    completion = client.completions.create(
        model=MODEL, prompt="Once upon a time", max_tokens=12, temperature=0
    )
    assert completion.choices[0].finish_reason == "length"
    assert completion.usage is not None
    assert completion.usage.completion_tokens == 12
    assert completion.choices[0].text.startswith(",") or completion.choices[0].text.strip()


def test_the_same_seed_tells_the_same_story_and_another_tells_another(
    client: openai.OpenAI,
) -> None:
    def story(seed: int) -> str:
        completion = client.completions.create(
            model=MODEL, prompt="Once upon a time", max_tokens=40, seed=seed
        )
        return completion.choices[0].text

    assert story(1) == story(1) != story(2)


def test_a_chat_streams_the_answer_it_gives_whole(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "Hello!"}], temperature=0
    )
    stream = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "Hello!"}],
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content != ""
    assert chunks[-1].usage == whole.usage
    assert whole.system_fingerprint == chunks[0].system_fingerprint


def test_a_stop_string_is_not_in_the_answer(client: openai.OpenAI) -> None:
    completion = client.completions.create(
        model=MODEL, prompt="Once upon a time", max_tokens=60, temperature=0, stop=["."]
    )
    assert completion.choices[0].finish_reason == "stop"
    assert "." not in completion.choices[0].text


def test_a_required_tool_is_called_with_arguments_that_fit(client: openai.OpenAI) -> None:
    completion = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "What is the weather in Paris?"}],
        tools=[WEATHER],
        tool_choice="required",
        temperature=0,
    )
    assert completion.choices[0].finish_reason == "tool_calls"
    [call] = completion.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert call.function.name == "get_weather"
    assert set(json.loads(call.function.arguments)) == {"city"}


def test_the_model_calls_a_tool_by_itself_and_reads_its_answer(client: openai.OpenAI) -> None:
    messages: list[Any] = [{"role": "user", "content": "What is the weather in Paris?"}]
    first = client.chat.completions.create(
        model=MODEL, messages=messages, tools=[WEATHER], temperature=0
    )
    [call] = first.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert json.loads(call.function.arguments) == {"city": "Paris"}
    messages += [
        {"role": "assistant", "tool_calls": [call.model_dump()]},
        {"role": "tool", "tool_call_id": call.id, "content": '{"weather": "sunny"}'},
    ]
    second = client.chat.completions.create(
        model=MODEL, messages=messages, tools=[WEATHER], temperature=0
    )
    assert "sunny" in (second.choices[0].message.content or "")


def test_a_schema_is_kept_at_any_temperature(client: openai.OpenAI) -> None:
    for seed in range(4):
        completion = client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": "Describe a person as JSON."}],
            response_format={
                "type": "json_schema",
                "json_schema": {"name": "person", "schema": PERSON, "strict": True},
            },
            temperature=1.5,
            seed=seed,
        )
        person = json.loads(completion.choices[0].message.content or "")
        assert set(person) == {"name", "age"}
        assert person["age"] in (3, 4, 5)


def test_logprobs_are_those_of_a_distribution(client: openai.OpenAI) -> None:
    completion = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "Hello!"}],
        logprobs=True,
        top_logprobs=5,
        temperature=0,
        max_tokens=5,
    )
    assert completion.choices[0].logprobs is not None
    for token in completion.choices[0].logprobs.content or []:
        assert token.logprob == token.top_logprobs[0].logprob, "greedy takes the likeliest"
        assert sum(math.exp(top.logprob) for top in token.top_logprobs) <= 1.0001


def test_n_answers_differ(client: openai.OpenAI) -> None:
    completion = client.completions.create(
        model=MODEL, prompt="Once upon a time", max_tokens=30, n=3, seed=1, temperature=1
    )
    assert [choice.index for choice in completion.choices] == [0, 1, 2]
    assert len({choice.text for choice in completion.choices}) == 3


def test_likely_words_score_higher_than_unlikely_ones(client: openai.OpenAI) -> None:
    """What evaluation harnesses do: echo with logprobs and nothing new."""

    def score(text: str) -> float:
        completion = client.completions.create(
            model=MODEL, prompt=text, echo=True, logprobs=1, max_tokens=0
        )
        assert completion.choices[0].logprobs is not None
        return sum(value or 0.0 for value in completion.choices[0].logprobs.token_logprobs or [])

    assert score("Once upon a time there") > score("Once upon a time spoon")


def test_embeddings_of_like_texts_are_closer(client: openai.OpenAI) -> None:
    answer = client.embeddings.create(
        model=MODEL,
        input=["The fox ran home.", "The fox walked home.", "What is 3 + 4?"],
    )
    fox, other_fox, sums = (item.embedding for item in answer.data)
    assert dot(fox, other_fox) > dot(fox, sums)
    assert dot(fox, fox) == pytest.approx(1.0, abs=1e-5)


def dot(left: list[float], right: list[float]) -> float:
    return sum(a * b for a, b in zip(left, right, strict=True))


def test_a_model_that_is_not_served_is_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.completions.create(model="gpt-9", prompt="Hi")
    assert caught.value.code == "model_not_found"


def test_a_prompt_beyond_the_context_says_both_numbers(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model=MODEL, prompt="fox " * 5000, max_tokens=1)
    assert caught.value.code == "context_length_exceeded"
    assert "2048" in caught.value.message
