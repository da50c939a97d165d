"""Tool calls: found in any stream, however it is cut; what is no call stays text."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import appliance
from appliance.text.tool_calls import (
    FoundCall,
    ToolCallParser,
    ToolFormat,
    detect_tool_format,
    visible_ids,
)
from tests.unit.text import tiny_tokenizers as tiny

HERMES, LLAMA3, MISTRAL = ToolFormat.HERMES, ToolFormat.LLAMA3, ToolFormat.MISTRAL
ADD = FoundCall("add", '{"left": 1, "right": 2}')
NOW = FoundCall("now", "{}")


def parse(tool_format: ToolFormat, pieces: list[str]) -> tuple[str, list[FoundCall]]:
    parser = ToolCallParser(tool_format)
    found = [*map(parser.push, pieces), parser.flush()]
    return "".join(part.text for part in found), [call for part in found for call in part.calls]


def written(call: FoundCall, key: str = "arguments") -> str:
    return f'{{"name": {json.dumps(call.name)}, "{key}": {call.arguments}}}'


def hermes(call: FoundCall) -> str:
    return f"<tool_call>\n{written(call)}\n</tool_call>"


CASES = [
    (HERMES, hermes(ADD), "", [ADD]),
    (HERMES, f"<tool_call>{written(ADD)}</tool_call>", "", [ADD]),
    (HERMES, f"I add.\n{hermes(ADD)}\n{hermes(NOW)}\n", "I add.", [ADD, NOW]),
    (HERMES, f"{hermes(ADD)} Done.", "Done.", [ADD]),
    (HERMES, "<tool_call>" + written(ADD), "", [ADD]),
    (HERMES, '<tool_call>{"name": "now"}</tool_call>', "", [NOW]),
    (HERMES, '<tool_call>{"name": "now", "arguments": "{}"}</tool_call>', "", [NOW]),
    (MISTRAL, f"[TOOL_CALLS][{written(ADD)}, {written(NOW)}]", "", [ADD, NOW]),
    (MISTRAL, f"I add. [TOOL_CALLS] [{written(ADD)}]", "I add. ", [ADD]),
    (LLAMA3, written(ADD, "parameters"), "", [ADD]),
    (LLAMA3, "<|python_tag|>" + written(ADD, "parameters"), "", [ADD]),
    (LLAMA3, f"\n{written(ADD, 'parameters')}; {written(NOW, 'parameters')}", "", [ADD, NOW]),
]
NO_CALLS = [
    (HERMES, "Use 1 < 2 and <b>tool_call</b>, then <tool_ca"),
    (HERMES, "ends in space \n"),
    (HERMES, " \n<tool_call>not JSON</tool_call> and more"),
    (HERMES, '<tool_call>{"name": 5}</tool_call>'),
    (HERMES, '<tool_call>{"name": "a", "arguments": [1]}</tool_call>'),
    (HERMES, '<tool_call>{"name": "a", "arguments": {"x": NaN}}</tool_call>'),
    (HERMES, '<tool_call>{"name": "a", "argum'),
    (HERMES, "<tool_call>" + "[" * 20_000),
    (HERMES, '<tool_call>{"name": "a", "arguments": {"x": ' + "9" * 5000 + "}}"),
    (MISTRAL, "[TOOL_CALLS][broken"),
    (MISTRAL, '[TOOL_CALLS]{"name": "a"}'),
    (MISTRAL, "[TOOL_CALLS][]"),
    (MISTRAL, "a list [1, 2] and [TOOL_"),
    (LLAMA3, "plain"),
    (LLAMA3, '{"city": "Oslo"}'),
    (LLAMA3, '{"name": "Oslo"}'),
    (LLAMA3, '{"name": "Oslo", "parameters": {}, "size": 1}'),
    (LLAMA3, '{"name": "Oslo", "parameters": {}} is the answer'),
    (LLAMA3, '{"na'),
    (LLAMA3, ""),
]


def cuts(text: str) -> st.SearchStrategy[list[str]]:
    """`text` cut into pieces in any way."""

    def cut(positions: list[int]) -> list[str]:
        bounds = [0, *sorted(positions), len(text)]
        return [text[a:b] for a, b in pairwise(bounds)]

    return st.lists(st.integers(0, len(text)), max_size=12).map(cut)


@pytest.mark.parametrize(("tool_format", "answer", "text", "calls"), CASES)
@settings(max_examples=25)
@given(data=st.data())
def test_calls_are_found_however_the_answer_is_cut(
    tool_format: ToolFormat, answer: str, text: str, calls: list[FoundCall], data: st.DataObject
) -> None:
    assert parse(tool_format, data.draw(cuts(answer))) == (text, calls)
    assert parse(tool_format, list(answer)) == (text, calls)


@pytest.mark.parametrize(("tool_format", "answer"), NO_CALLS)
def test_what_is_no_call_comes_back_as_it_was(tool_format: ToolFormat, answer: str) -> None:
    assert parse(tool_format, [answer]) == (answer, [])
    assert parse(tool_format, list(answer)) == (answer, [])


@pytest.mark.parametrize("tool_format", list(ToolFormat))
@given(pieces=st.lists(st.sampled_from('{}[]<>"\\ \n;ab') | st.sampled_from([
    "<tool_call>", "</tool_call>", "[TOOL_CALLS]", "<|python_tag|>", '{"name": "a"', "[{",
])))  # fmt: skip
def test_text_that_holds_no_call_is_never_lost(tool_format: ToolFormat, pieces: list[str]) -> None:
    text, calls = parse(tool_format, pieces)
    assert calls or text == "".join(pieces)


arguments = st.dictionaries(
    st.text(max_size=5), st.text(st.characters(exclude_categories=["Cs"])) | st.integers()
)


@given(values=arguments, name=st.text(st.characters(exclude_categories=["Cs"])))
def test_any_arguments_arrive_unchanged(values: dict[str, str | int], name: str) -> None:
    answer = hermes(FoundCall(name, json.dumps(values)))
    _, [call] = parse(HERMES, list(answer))
    assert call.name == name
    assert json.loads(call.arguments) == values


def test_a_closing_mark_inside_an_argument_ends_nothing() -> None:
    call = FoundCall("write", '{"text": "say \\"</tool_call>\\" twice: </tool_call>"}')
    assert parse(HERMES, list(hermes(call))) == ("", [call])


def test_half_a_surrogate_pair_stays_escaped() -> None:
    _, [call] = parse(HERMES, [hermes(FoundCall("a", '{"x": "\\ud800"}'))])
    assert call.arguments == '{"x": "\\ud800"}'


def test_text_before_a_call_is_shown_before_the_call_is_complete() -> None:
    parser = ToolCallParser(HERMES)
    assert parser.push("Let me see. <tool").text == "Let me see."
    assert parser.push("_call>{").text == ""


def test_an_answer_in_plain_text_is_not_held_back_for_llama3() -> None:
    parser = ToolCallParser(LLAMA3)
    assert parser.push("Hel").text == "Hel"
    assert parser.push('{"name": ').text == '{"name": '


EMBEDDED = Path(appliance.__file__).parent / "embedded" / "chat_template.jinja"


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (None, None),
        ("{{ messages }}", None),
        ("{% if tools %}<tool_call>{% endif %}", HERMES),
        ("{% if tools %}<tool_call><function=name>{% endif %}", None),
        ("{% if tools %}[TOOL_CALLS]{% endif %}", MISTRAL),
        ("{% if tools %}[TOOL_CALLS]name[ARGS]{% endif %}", None),
        ('{% if tools %}<|start_header_id|>{"name": , "parameters": {% endif %}', LLAMA3),
        ("{% if tools %}something else{% endif %}", None),
        (EMBEDDED.read_text(), HERMES),
    ],
)
def test_the_format_is_read_from_the_template(
    template: str | None, expected: ToolFormat | None
) -> None:
    assert detect_tool_format(template) == expected


def test_the_tokens_that_mark_calls_are_known() -> None:
    tokenizer = tiny.byte_level()
    ids = {tokenizer.token_id("<tool_call>"), tokenizer.token_id("</tool_call>")}
    assert visible_ids(tokenizer) == ids
    assert visible_ids(tiny.sentencepiece()) == frozenset()


def test_a_number_that_json_cannot_write_makes_it_no_call() -> None:
    parser = ToolCallParser(ToolFormat.HERMES)
    text = '<tool_call>{"name": "f", "arguments": {"x": 1e999}}</tool_call>'
    found = [parser.push(text), parser.flush()]
    assert [call for part in found for call in part.calls] == []
    assert "1e999" in "".join(part.text for part in found)
