"""The chat template renders what the model was trained on, whatever shape messages arrive in."""

from __future__ import annotations

import json
from typing import Any

import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from pebble.conversation import TEMPLATE_PATH, Conversation, render, say

WEATHER = {
    "name": "get_weather",
    "description": "Get the weather in a city",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
    },
}
WEATHER_LINE = (
    '{"name": "get_weather", "description": "Get the weather in a city", "parameters": '
    '{"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}'
)
CALL = (
    '<|assistant|><tool_call>{"name": "get_weather", "arguments": {"city": "Paris"}}'
    "</tool_call><|end|>"
)


def rendered(messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None = None) -> str:
    return render(Conversation(messages, tools or ()))


def test_turns_follow_each_other_between_role_and_end() -> None:
    assert render(say("Hello", "Hi!", system="Be kind.")) == (
        "<|begin|><|system|>Be kind.<|end|><|user|>Hello<|end|><|assistant|>Hi!<|end|>"
    )


def test_an_open_conversation_ends_at_the_assistant() -> None:
    assert render(say("Hello"), is_open=True) == "<|begin|><|user|>Hello<|end|><|assistant|>"


def test_tools_make_a_system_turn_of_their_own() -> None:
    text = rendered([{"role": "user", "content": "Hi"}], [WEATHER])
    assert (
        text
        == f"<|begin|><|system|>You can call these tools:\n{WEATHER_LINE}<|end|><|user|>Hi<|end|>"
    )


def test_tools_follow_the_system_line() -> None:
    text = rendered([{"role": "system", "content": "Be short."}], [WEATHER])
    assert text == f"<|begin|><|system|>Be short.\nYou can call these tools:\n{WEATHER_LINE}<|end|>"


def test_tools_are_read_in_both_shapes() -> None:
    messages = [{"role": "user", "content": "Hi"}]
    assert rendered(messages, [{"type": "function", "function": WEATHER}]) == rendered(
        messages, [WEATHER]
    )


def test_a_tool_without_description_and_parameters_is_still_a_line() -> None:
    text = rendered([{"role": "user", "content": "Hi"}], [{"name": "ping"}])
    assert '{"name": "ping", "description": "", "parameters": {}}' in text


@pytest.mark.parametrize("arguments", [{"city": "Paris"}, '{"city": "Paris"}'])
def test_past_calls_are_read_with_arguments_as_object_or_as_string(arguments: object) -> None:
    call = {
        "id": "1",
        "type": "function",
        "function": {"name": "get_weather", "arguments": arguments},
    }
    text = rendered([{"role": "assistant", "content": None, "tool_calls": [call]}])
    assert text == "<|begin|>" + CALL


def test_two_calls_stand_in_one_turn() -> None:
    call = {"function": {"name": "get_weather", "arguments": {"city": "Paris"}}}
    text = rendered([{"role": "assistant", "content": "", "tool_calls": [call, call]}])
    assert text.count("<tool_call>") == 2
    assert text.count("<|assistant|>") == text.count("<|end|>") == 1


def test_empty_arguments_are_an_empty_object() -> None:
    text = rendered(
        [{"role": "assistant", "tool_calls": [{"function": {"name": "now", "arguments": ""}}]}]
    )
    assert '{"name": "now", "arguments": {}}' in text


def test_a_tool_result_is_a_turn() -> None:
    assert rendered([{"role": "tool", "tool_call_id": "1", "content": '{"degrees": 3}'}]) == (
        '<|begin|><|tool|>{"degrees": 3}<|end|>'
    )


def test_text_parts_are_joined() -> None:
    parts = [{"type": "text", "text": "Hello "}, {"type": "text", "text": "you"}]
    assert rendered([{"role": "user", "content": parts}]) == "<|begin|><|user|>Hello you<|end|>"


def test_a_picture_is_refused_by_name() -> None:
    parts = [{"type": "image_url", "image_url": {"url": "data:"}}]
    with pytest.raises(ValueError, match="not content of type image_url"):
        rendered([{"role": "user", "content": parts}])


def test_an_unknown_role_is_refused_by_name() -> None:
    with pytest.raises(
        ValueError, match="Unknown message role wizard: use system, user, assistant or tool"
    ):
        rendered([{"role": "wizard", "content": "Hi"}])


def test_letters_outside_ascii_and_quotes_stay_as_they_are() -> None:
    call = {"function": {"name": "get_weather", "arguments": {"city": "Zürich <& 'x'"}}}
    assert "Zürich <& 'x'" in rendered([{"role": "assistant", "tool_calls": [call]}])


def test_a_bare_sandbox_with_nothing_but_tojson_renders_it() -> None:
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.filters["tojson"] = json.dumps
    template = environment.from_string(TEMPLATE_PATH.read_text(encoding="utf-8"))
    assert (
        template.render(messages=[{"role": "user", "content": "Hi"}])
        == "<|begin|><|user|>Hi<|end|>"
    )
