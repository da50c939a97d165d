"""Grammars: any model's answer fits, and no client's schema takes the server down."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import JsonValue

import appliance
from appliance.errors import InvalidRequest
from appliance.text.detokenizer import Detokenizer
from appliance.text.grammar import CompiledGrammar, GrammarCompiler, GrammarConstraint
from appliance.text.tokenizer import Tokenizer
from appliance.text.tool_calls import ToolCallParser, ToolFormat, visible_ids
from tests.unit.text import tiny_tokenizers as tiny

Schema = dict[str, JsonValue]

NUM_PADDING = 13  # models round their embeddings up
EMBEDDED = Path(appliance.__file__).parent / "embedded" / "tokenizer.json"
TOOLS: dict[str, Schema] = {
    "add": {
        "type": "object",
        "properties": {"left": {"type": "integer"}, "right": {"type": "integer"}},
        "required": ["left", "right"],
    },
    "now": {},
}


@pytest.fixture(scope="module")
def compiler() -> Iterator[GrammarCompiler]:
    tokenizer = tiny.byte_level()
    compiler = GrammarCompiler(tokenizer, [end_id(tokenizer)])
    yield compiler
    compiler.close()


@pytest.fixture(
    scope="module",
    params=[tiny.byte_level, tiny.sentencepiece, lambda: Tokenizer.from_file(EMBEDDED)],
    ids=["byte-level", "sentencepiece", "embedded"],
)
def any_model(request: pytest.FixtureRequest) -> Iterator[tuple[Tokenizer, GrammarCompiler]]:
    tokenizer: Tokenizer = request.param()
    compiler = GrammarCompiler(tokenizer, [end_id(tokenizer)])
    yield tokenizer, compiler
    compiler.close()


def end_id(tokenizer: Tokenizer) -> int:
    found = tokenizer.token_id("</s>")
    return 2 if found is None else found


def allowed_ids(constraint: GrammarConstraint, tokenizer: Tokenizer) -> set[int]:
    logits = np.zeros(tokenizer.vocab_size + NUM_PADDING, dtype=np.float32)
    constraint.apply(logits)
    return set(np.flatnonzero(np.isfinite(logits)).tolist())


def model_with_taste(tokenizer: Tokenizer, seed: int) -> Callable[[], NDArray[np.float32]]:
    """Logits of a model that knows nothing, but likes to come to an end."""
    rng = np.random.default_rng(seed)
    closing = {b'"', b"}", b"]", b"}}", b"1"}
    taste = [tokenizer.token_bytes(i) in closing for i in range(tokenizer.vocab_size)]
    bonus = np.array([*taste, *[0] * NUM_PADDING], dtype=np.float32) * 3
    bonus[end_id(tokenizer)] = 3
    return lambda: rng.normal(size=len(bonus)).astype(np.float32) + bonus


def write(
    tokenizer: Tokenizer, grammar: CompiledGrammar, seed: int, num_tokens: int = 400
) -> tuple[str, bool]:
    """What such a model writes under the grammar, and whether it came to an end."""
    constraint = grammar.constraint()
    detokenizer = Detokenizer(tokenizer, visible_ids=visible_ids(tokenizer))
    next_logits, text = model_with_taste(tokenizer, seed), ""
    for _ in range(num_tokens):
        if constraint.is_complete:
            return text + detokenizer.flush(), True
        logits = next_logits()
        constraint.apply(logits)
        token_id = int(logits.argmax())
        if token_id == end_id(tokenizer):
            return text + detokenizer.flush(), True
        constraint.accept(token_id)
        text += detokenizer.push(token_id)
    return text, False


def writes(grammar: CompiledGrammar, text: str) -> bool:
    """Whether the grammar lets the whole of `text` be written, and end there."""
    tokenizer, constraint = tiny.byte_level(), grammar.constraint()
    for token_id in tokenizer.encode(text, add_special_tokens=False):
        if token_id not in allowed_ids(constraint, tokenizer):
            return False
        constraint.accept(token_id)
    return end_id(tokenizer) in allowed_ids(constraint, tokenizer)


@pytest.mark.parametrize("seed", range(4))
def test_a_model_that_knows_nothing_writes_a_json_object(
    any_model: tuple[Tokenizer, GrammarCompiler], seed: int
) -> None:
    tokenizer, compiler = any_model
    text, is_ended = write(tokenizer, compiler.json_object(), seed)
    assert is_ended
    assert isinstance(json.loads(text), dict)


@pytest.mark.parametrize("seed", range(4))
def test_a_model_that_knows_nothing_keeps_to_a_schema(
    any_model: tuple[Tokenizer, GrammarCompiler], seed: int
) -> None:
    tokenizer, compiler = any_model
    schema: Schema = {
        "type": "object",
        "properties": {
            "size": {"enum": ["small", "large"]},
            "counts": {"type": "array", "items": {"type": "integer"}, "maxItems": 3},
            "tree": {"$ref": "#/$defs/tree"},
        },
        "required": ["size", "counts", "tree"],
        "additionalProperties": False,
        "$defs": {
            "tree": {
                "type": "object",
                "properties": {"child": {"anyOf": [{"$ref": "#/$defs/tree"}, {"type": "null"}]}},
                "required": ["child"],
                "additionalProperties": False,
            }
        },
    }
    text, is_ended = write(tokenizer, compiler.json_schema(schema), seed)
    assert is_ended
    value = json.loads(text)
    assert list(value) == ["size", "counts", "tree"]
    assert value["size"] in ("small", "large")
    assert len(value["counts"]) <= 3


@pytest.mark.parametrize("tool_format", list(ToolFormat))
@pytest.mark.parametrize("named", [None, "add"])
def test_a_model_that_knows_nothing_writes_one_call_of_a_known_tool(
    any_model: tuple[Tokenizer, GrammarCompiler], tool_format: ToolFormat, named: str | None
) -> None:
    tokenizer, compiler = any_model
    grammar = compiler.tool_call(TOOLS, tool_format, named=named)
    for seed in range(3):
        text, is_ended = write(tokenizer, grammar, seed)
        parser = ToolCallParser(tool_format)
        [call] = [*parser.push(text).calls, *parser.flush().calls]
        assert is_ended
        assert call.name == "add" or (named is None and call.arguments == "{}")


@given(text=st.text("ab <{\n", max_size=8))
@settings(max_examples=30)
def test_free_text_and_calls_mix_when_tools_are_optional(
    compiler: GrammarCompiler, text: str
) -> None:
    grammar = compiler.optional_tool_calls(TOOLS, ToolFormat.HERMES)
    assert grammar is not None
    call = '<tool_call>{"name": "now", "arguments": {}}</tool_call>'
    assert writes(grammar, text)
    assert writes(grammar, text + call)
    assert writes(grammar, call + text + call)


@pytest.mark.parametrize("call", ['{"name": "other"', "free text", "{}", '{"name": "add", "x"'])
def test_an_optional_call_must_be_a_right_one_once_it_has_begun(
    compiler: GrammarCompiler, call: str
) -> None:
    grammar = compiler.optional_tool_calls(TOOLS, ToolFormat.HERMES)
    assert grammar is not None
    assert not writes(grammar, f"I try. <tool_call>{call}</tool_call>")


def test_without_a_marking_token_optional_calls_are_not_constrained() -> None:
    compiler = GrammarCompiler(tiny.sentencepiece(), [2])
    assert compiler.optional_tool_calls(TOOLS, ToolFormat.HERMES) is None
    assert compiler.optional_tool_calls(TOOLS, ToolFormat.LLAMA3) is None


def test_a_schema_beyond_us_leaves_optional_calls_unconstrained(compiler: GrammarCompiler) -> None:
    assert compiler.optional_tool_calls({"t": {"not": {}}}, ToolFormat.HERMES) is None


def test_the_name_of_a_tool_may_hold_any_character(compiler: GrammarCompiler) -> None:
    name = 'a"b\\c é\n'
    grammar = compiler.tool_call({name: {}}, ToolFormat.HERMES)
    text, _ = write(tiny.byte_level(), grammar, 0)
    assert [call.name for call in ToolCallParser(ToolFormat.HERMES).push(text).calls] == [name]


def test_arguments_hold_only_what_a_tool_declares(compiler: GrammarCompiler) -> None:
    schema: Schema = {"properties": {"a": {"type": "integer"}}}
    call = '<tool_call>{"name": "t", "arguments": {%s}}</tool_call>'
    closed = compiler.tool_call({"t": schema}, ToolFormat.HERMES)
    assert writes(closed, call % '"a": 1')
    assert not writes(closed, call % '"b": 1')
    opened = compiler.tool_call({"t": {**schema, "additionalProperties": True}}, ToolFormat.HERMES)
    assert writes(opened, call % '"b": 1')


# The edges of a mask.


def test_only_the_end_may_follow_a_complete_answer(compiler: GrammarCompiler) -> None:
    tokenizer = tiny.byte_level()
    constraint = compiler.json_schema({"const": 1}).constraint()
    assert not constraint.is_complete
    constraint.accept(tokenizer.encode("1", add_special_tokens=False)[0])
    assert constraint.is_complete
    assert not constraint.has_failed
    assert allowed_ids(constraint, tokenizer) == {end_id(tokenizer)}
    constraint.accept(end_id(tokenizer))
    assert allowed_ids(constraint, tokenizer) == {end_id(tokenizer)}


def test_every_end_token_of_the_model_may_end_an_answer() -> None:
    tokenizer = tiny.byte_level()
    compiler = GrammarCompiler(tokenizer, [1, 3])
    constraint = compiler.json_schema({"type": "integer"}).constraint()
    assert not {1, 3} & allowed_ids(constraint, tokenizer)
    constraint.accept(tokenizer.encode("1", add_special_tokens=False)[0])
    assert {1, 3} <= allowed_ids(constraint, tokenizer)
    compiler.close()


def test_padded_and_special_tokens_are_never_allowed(compiler: GrammarCompiler) -> None:
    tokenizer = tiny.byte_level()
    constraint = compiler.json_schema({"type": "string"}).constraint()
    constraint.accept(tokenizer.encode('"', add_special_tokens=False)[0])
    allowed = allowed_ids(constraint, tokenizer)
    assert max(allowed) < tokenizer.vocab_size
    assert not allowed & (tokenizer.special_ids | visible_ids(tokenizer))


def test_logits_of_allowed_tokens_do_not_change(compiler: GrammarCompiler) -> None:
    constraint = compiler.json_object().constraint()
    before = np.random.default_rng(0).normal(size=tiny.byte_level().vocab_size)
    logits = before.astype(np.float32)
    constraint.apply(logits)
    kept = np.isfinite(logits)
    assert kept.any()
    assert (logits[kept] == before.astype(np.float32)[kept]).all()


def test_white_space_cannot_go_on_for_ever(compiler: GrammarCompiler) -> None:
    grammar = compiler.json_object()
    assert writes(grammar, '{"a": 1}')
    assert writes(grammar, '{\n  "a": [\n    1,\n    2\n  ]\n}')
    assert writes(grammar, '{"a":1}')
    assert not writes(grammar, '{  "a": 1}')
    assert not writes(grammar, "{\n\n}")
    assert not writes(grammar, "{\n" + " " * 25 + "}")


def test_sequences_of_one_grammar_do_not_disturb_each_other(compiler: GrammarCompiler) -> None:
    tokenizer, grammar = tiny.byte_level(), compiler.json_object()
    first, second = grammar.constraint(), grammar.constraint()
    before = allowed_ids(second, tokenizer)
    first.accept(tokenizer.encode("{", add_special_tokens=False)[0])
    assert allowed_ids(first, tokenizer) != before
    assert allowed_ids(second, tokenizer) == before


def test_many_threads_may_compile_at_once() -> None:
    compiler = GrammarCompiler(tiny.byte_level(), [1], cache_size=4)
    schemas: list[Schema] = [{"enum": [index % 6]} for index in range(24)]
    with ThreadPoolExecutor(4) as pool:
        grammars = list(pool.map(compiler.json_schema, schemas))
    assert all(writes(grammar, str(index % 6)) for index, grammar in enumerate(grammars))
    compiler.close()


def test_the_same_schema_is_compiled_once_and_the_cache_is_bounded() -> None:
    compiler = GrammarCompiler(tiny.byte_level(), [1], cache_size=2)
    first = compiler.json_schema({"const": 1})
    assert compiler.json_schema({"const": 1}) is first
    for value in (2, 3):
        compiler.json_schema({"const": value})
    assert compiler.json_schema({"const": 1}) is not first
    compiler.close()


def test_a_tool_whose_schema_is_beyond_us_is_refused(compiler: GrammarCompiler) -> None:
    with pytest.raises(InvalidRequest, match="uses 'not'") as error:
        compiler.tool_call({"t": {"properties": {"a": {"not": {}}}}}, ToolFormat.HERMES)
    assert error.value.field == "tools"


@pytest.mark.parametrize("schema", [{"type": "string"}, {"type": ["object", "null"]}])
def test_arguments_that_are_no_object_are_refused(
    compiler: GrammarCompiler, schema: Schema
) -> None:
    with pytest.raises(InvalidRequest, match="schema of an object"):
        compiler.tool_call({"t": schema}, ToolFormat.HERMES)


def test_no_tools_are_refused(compiler: GrammarCompiler) -> None:
    with pytest.raises(InvalidRequest, match="at least one tool"):
        compiler.tool_call({}, ToolFormat.HERMES)


@pytest.mark.parametrize(
    ("tokenizer", "end_ids"),
    [(tiny.wordpiece(), [0]), (tiny.byte_level(), []), (tiny.byte_level(), [10**6])],
    ids=["spaces get lost", "no end", "an end beyond the vocabulary"],
)
def test_a_tokenizer_that_no_grammar_can_hold_is_refused(
    tokenizer: Tokenizer, end_ids: list[int]
) -> None:
    compiler = GrammarCompiler(tokenizer, end_ids)
    with pytest.raises(InvalidRequest, match="does not allow constrained output"):
        compiler.json_object()
    compiler.close()
