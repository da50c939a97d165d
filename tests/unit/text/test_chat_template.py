"""Chat templates: they render as transformers renders them, and nothing in one can hurt us."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import JsonValue

from appliance.errors import InvalidRequest, ModelRefused
from appliance.text.chat_template import ChatTemplate
from appliance.text.tokenizer import BOUNDARY
from tests.unit.text import tiny_tokenizers as tiny
from tests.unit.text.template_styles import CHATML, STYLES

Messages = Sequence[Mapping[str, JsonValue]]

SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}
WEATHER: dict[str, JsonValue] = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Größe & <b>",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


@pytest.fixture(scope="module", params=list(STYLES.values()), ids=list(STYLES))
def style(request: pytest.FixtureRequest) -> Iterator[tuple[str, ChatTemplate]]:
    template = ChatTemplate(request.param, SPECIAL, added_tokens={})
    yield request.param, template
    template.close()


@pytest.fixture(scope="module")
def chatml() -> Iterator[ChatTemplate]:
    template = ChatTemplate(CHATML, SPECIAL, added_tokens=tiny.byte_level().added_tokens)
    yield template
    template.close()


def user(content: str) -> dict[str, JsonValue]:
    return {"role": "user", "content": content}


def oracle(source: str, messages: Messages, tools: Sequence[JsonValue]) -> str | None:
    """What transformers renders; None where it raises."""
    from transformers import PreTrainedTokenizerFast  # noqa: PLC0415 - not in the lean installation

    tokenizer: Any = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tiny.byte_level_backend(), **SPECIAL
    )
    options = {"tools": list(tools) or None, "tokenize": False, "add_generation_prompt": True}
    try:
        return str(tokenizer.apply_chat_template(list(messages), chat_template=source, **options))
    except Exception:  # noqa: BLE001  whatever it is, it renders nothing
        return None


contents = st.text(alphabet="ab \n<|>{}[]é😀\"'&\\", max_size=12)
calls = st.fixed_dictionaries(
    {
        "role": st.just("assistant"),
        "content": st.none(),
        "tool_calls": st.lists(
            st.fixed_dictionaries(
                {
                    "id": st.just("call_1"),
                    "type": st.just("function"),
                    "function": st.fixed_dictionaries(
                        {
                            "name": st.just("weather"),
                            "arguments": st.dictionaries(contents, contents, max_size=2),
                        }
                    ),
                }
            ),
            min_size=1,
            max_size=2,
        ),
    }
)
spoken = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "user", "assistant", "tool"]), "content": contents}
)
conversations = st.lists(st.one_of(spoken, spoken, calls), min_size=1, max_size=5)


@settings(max_examples=40)
@given(messages=conversations, has_tools=st.booleans())
def test_templates_render_as_in_transformers(
    style: tuple[str, ChatTemplate], messages: Messages, has_tools: bool
) -> None:
    source, template = style
    tools = [WEATHER] if has_tools else []
    expected = oracle(source, messages, tools)
    try:
        rendered: str | None = template.render(messages, tools).replace(BOUNDARY, "")
    except InvalidRequest:
        rendered = None
    assert rendered == expected


def test_tool_call_arguments_in_json_text_reach_the_template_as_an_object(
    chatml: ChatTemplate,
) -> None:
    call: JsonValue = {"function": {"name": "add", "arguments": '{"left": 1}'}}
    text = chatml.render([{"role": "assistant", "content": None, "tool_calls": [call]}])
    assert '{"name": "add", "arguments": {"left": 1}}' in text


def test_arguments_that_are_no_object_stay_text(chatml: ChatTemplate) -> None:
    call: JsonValue = {"function": {"name": "add", "arguments": "[1"}}
    text = chatml.render([{"role": "assistant", "content": None, "tool_calls": [call]}])
    assert '"arguments": "[1"}' in text


def test_the_generation_prompt_can_be_left_out(chatml: ChatTemplate) -> None:
    with_prompt = chatml.render([user("hi")])
    without = chatml.render([user("hi")], add_generation_prompt=False)
    assert with_prompt == without + "<|im_start|>assistant\n"


def test_the_clock_is_the_callers() -> None:
    noon = datetime(2026, 1, 2, 12, tzinfo=UTC)
    template = ChatTemplate(
        "{{ strftime_now('%d %b %Y %H') }}", {}, added_tokens={}, clock=lambda: noon
    )
    assert template.render([user("hi")]) == "02 Jan 2026 12"
    template.close()


# What users write.


def control_ids(text: str) -> list[int]:
    tokenizer = tiny.byte_level()
    control = {tokenizer.token_id(token) for token in ["<|im_start|>", "<|im_end|>", "</s>"]}
    return [i for i in tokenizer.encode(text, add_special_tokens=False) if i in control]


smuggled = st.lists(
    st.sampled_from(["<|im_end|>", "<|im_start|>", "</s>", "<|im_", "end|>", "<", "|>", "a", "\n"]),
    max_size=8,
).map("".join)


@given(content=smuggled, second=smuggled)
def test_no_message_can_write_a_control_token(
    chatml: ChatTemplate, content: str, second: str
) -> None:
    harmless = chatml.render([user("x"), user("y")])
    attacked = chatml.render([user(content), user(second)])
    assert control_ids(attacked) == control_ids(harmless)


@given(content=smuggled)
def test_the_model_still_reads_what_the_user_wrote(chatml: ChatTemplate, content: str) -> None:
    tokenizer = tiny.byte_level()
    ids = tokenizer.encode(chatml.render([user(content)]), add_special_tokens=False)
    text = tokenizer.decode(ids, skip_special_tokens=False)
    assert text == f"<|im_start|>user\n{content}<|im_end|>\n<|im_start|>assistant\n"


def test_two_pieces_of_content_cannot_join_to_a_control_token() -> None:
    template = ChatTemplate(
        "{% for m in messages %}{{ m.content }}{% endfor %}",
        SPECIAL,
        added_tokens=tiny.byte_level().added_tokens,
    )
    assert control_ids(template.render([user("<|im_"), user("end|>")])) == []
    template.close()


@pytest.mark.parametrize("place", ["name", "description", "key"])
def test_tools_cannot_write_a_control_token_either(chatml: ChatTemplate, place: str) -> None:
    tool: dict[str, JsonValue] = {"type": "function", "function": {place: "<|im_end|>"}}
    if place == "key":
        tool = {"function": {"<|im_end|>": 1}}
    harmless = chatml.render([user("hi")], [WEATHER])
    assert control_ids(chatml.render([user("hi")], [tool])) == control_ids(harmless)


def test_a_template_still_finds_its_marks_in_what_was_said(chatml: ChatTemplate) -> None:
    template = ChatTemplate(CHATML, SPECIAL, added_tokens={"</think>": False})
    text = template.render([{"role": "assistant", "content": "<think>hm</think>Yes"}, user("Why?")])
    assert "hm" not in text
    assert "Yes" in text
    template.close()


@pytest.mark.parametrize("role", ["<|im_end|>", "robot", "", None, 5])
def test_an_unknown_role_is_refused(chatml: ChatTemplate, role: JsonValue) -> None:
    with pytest.raises(InvalidRequest, match=r"messages\[1\]\.role"):
        chatml.render([user("hi"), {"role": role, "content": "hi"}])


# What templates do.


def test_a_model_without_a_template_cannot_chat() -> None:
    with pytest.raises(InvalidRequest, match="/v1/completions") as error:
        ChatTemplate(None, {}, added_tokens={}).render([user("hi")])
    assert error.value.code == "no_chat_template"


@pytest.mark.parametrize(
    "source", ["{% if %}", "{{ 'a' ", "{% endfor %}", "{% bogus %}", "{{ x | nosuchfilter }}"]
)
def test_a_template_that_does_not_compile_refuses_the_model(source: str) -> None:
    with pytest.raises(ModelRefused, match="does not compile: line 1"):
        ChatTemplate(source, {}, added_tokens={})


def test_a_template_that_is_too_long_refuses_the_model() -> None:
    with pytest.raises(ModelRefused, match="1048576"):
        ChatTemplate("x" * (2**20 + 1), {}, added_tokens={})


def test_what_a_template_says_against_the_messages_reaches_the_client() -> None:
    template = ChatTemplate(
        "{{ raise_exception('Roles must alternate' ~ 'x' * 900) }}", {}, added_tokens={}
    )
    with pytest.raises(InvalidRequest, match="refuses these messages: Roles must") as error:
        template.render([user("hi")])
    assert error.value.field == "messages"
    assert len(error.value.message) < 300
    template.close()
