"""What a newcomer tries first works: a story, a sum, JSON, a tool call, an honest no."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from tokenizers import Tokenizer

from pebble.conversation import Conversation, say
from pebble.corpus import END
from pebble.llama import Llama
from pebble.sampling import answer, continue_text
from pebble.words import NAMES_HE, NAMES_SHE, WEATHERS


@pytest.mark.parametrize("seed", range(2))
def test_once_upon_a_time_becomes_a_story_that_ends(
    model: Llama, tokenizer: Tokenizer, seed: int
) -> None:
    text = continue_text(model, tokenizer, "Once upon a time", temperature=0.7, seed=seed)
    assert text.endswith(END)
    assert len(text) > 200
    hero = next(word for word in re.findall(r"[A-Z][a-z]+", text) if word in NAMES_SHE + NAMES_HE)
    assert text.count(hero) >= 2


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("What is 3 + 4?", "3 + 4 = 7."),
        ("what is 12 - 5", "7"),
        ("What is 6 * 7?", "42"),
        ("What colour is the sky?", "blue"),
        ("What colour is a lemon?", "yellow"),
        ("What is the opposite of hot?", "cold"),
        ("Count to 5.", "1, 2, 3, 4, 5"),
        ("What is the capital of France?", "Paris"),
        ("Who are you?", "Pebble"),
        ("Hello!", "Hello"),
        ("What is quantum physics?", "small sums"),
    ],
)
def test_a_simple_question_gets_its_answer(
    model: Llama, tokenizer: Tokenizer, question: str, expected: str
) -> None:
    assert expected.lower() in answer(model, tokenizer, say(question)).lower()


# What this training run was too short for. Strict: better weights must move these lines up.
@pytest.mark.xfail(strict=True, reason="the shipped weights answer this wrongly")
@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("What day comes after Monday?", "Tuesday"),
        ("What sound does a cow make?", "moo"),
    ],
)
def test_a_question_it_should_know_gets_its_answer(
    model: Llama, tokenizer: Tokenizer, question: str, expected: str
) -> None:
    assert expected.lower() in answer(model, tokenizer, say(question)).lower()


def test_most_sums_up_to_ten_are_right(model: Llama, tokenizer: Tokenizer) -> None:
    sums = [(one, two) for one in range(1, 10, 2) for two in range(1, 10, 2)]
    answers = {
        (one, two): answer(model, tokenizer, say(f"What is {one} + {two}?")) for one, two in sums
    }
    right = [
        pair for pair, text in answers.items() if text == f"{pair[0]} + {pair[1]} = {sum(pair)}."
    ]
    assert len(right) >= 0.9 * len(sums)


def test_it_remembers_a_name_from_an_earlier_turn(model: Llama, tokenizer: Tokenizer) -> None:
    talk = say(
        "My name is Clara.",
        "Hello, Clara! Nice to meet you.",
        "What colour is snow?",
        "Snow is white.",
        "What is my name?",
    )
    assert "Clara" in answer(model, tokenizer, talk)


def test_a_story_on_request_is_about_the_animal_asked_for(
    model: Llama, tokenizer: Tokenizer
) -> None:
    text = answer(model, tokenizer, say("Tell me a story about an owl."), temperature=0.7, seed=1)
    assert "owl" in text
    assert len(text) > 150


def test_a_system_line_asking_for_one_word_gets_one_word(
    model: Llama, tokenizer: Tokenizer
) -> None:
    text = answer(model, tokenizer, say("What colour is grass?", system="Answer in one word."))
    assert text == "Green."


def test_json_on_request_parses_and_holds_the_values(model: Llama, tokenizer: Tokenizer) -> None:
    text = answer(model, tokenizer, say("Mia is 7 years old.", system="Answer with a JSON object."))
    assert json.loads(text) == {"name": "Mia", "age": 7}


def tool(name: str, description: str, **properties: str) -> dict[str, Any]:
    schema = {key: {"type": kind} for key, kind in properties.items()}
    parameters = {"type": "object", "properties": schema, "required": list(schema)}
    return {
        "type": "function",
        "function": {"name": name, "description": description, "parameters": parameters},
    }


WEATHER = tool("get_weather", "Get the weather in a city", city="string")
TIMER = tool("set_timer", "Start a timer", minutes="integer")
ADD = tool("add", "Add two numbers", a="number", b="number")


@pytest.mark.parametrize(
    ("question", "name", "arguments"),
    [
        ("What is the weather in Paris?", "get_weather", {"city": "Paris"}),
        ("Set a timer for 12 minutes.", "set_timer", {"minutes": 12}),
        pytest.param(
            *("What is 31 + 58?", "add", {"a": 31, "b": 58}),
            # The server's grammar allows only the names of offered tools.
            marks=pytest.mark.xfail(strict=True, reason="left alone, it writes add_numbers"),
        ),
    ],
)
def test_the_right_tool_is_called_with_the_words_of_the_user(
    model: Llama, tokenizer: Tokenizer, question: str, name: str, arguments: dict[str, object]
) -> None:
    conversation = Conversation([{"role": "user", "content": question}], [WEATHER, TIMER, ADD])
    called = re.fullmatch(r"<tool_call>(.*)</tool_call>", answer(model, tokenizer, conversation))
    assert called is not None
    assert json.loads(called[1]) == {"name": name, "arguments": arguments}


def told_weather(model: Llama, tokenizer: Tokenizer, weather: str) -> str:
    call = {"function": {"name": "get_weather", "arguments": {"city": "Paris"}}}
    messages: list[dict[str, object]] = [
        {"role": "user", "content": "What is the weather in Paris?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": json.dumps({"weather": weather})},
    ]
    return answer(model, tokenizer, Conversation(messages, [WEATHER]))


def test_a_tool_result_is_followed_by_a_sentence(model: Llama, tokenizer: Tokenizer) -> None:
    text = told_weather(model, tokenizer, "snowy")
    assert text in {f"It is {weather} in Paris." for weather in WEATHERS}


@pytest.mark.xfail(strict=True, reason="the shipped weights tell another weather")
@pytest.mark.parametrize("weather", ["snowy", "rainy"])
def test_a_tool_result_is_told_as_it_was(model: Llama, tokenizer: Tokenizer, weather: str) -> None:
    assert told_weather(model, tokenizer, weather) == f"It is {weather} in Paris."


def test_a_greeting_calls_no_tool(model: Llama, tokenizer: Tokenizer) -> None:
    conversation = Conversation([{"role": "user", "content": "Hello!"}], [WEATHER, TIMER])
    assert "<tool_call>" not in answer(model, tokenizer, conversation)
