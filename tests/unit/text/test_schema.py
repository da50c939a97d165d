"""Whatever schema a client sends, it works or is refused by name, soon."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from pydantic import JsonValue

from appliance.errors import InvalidRequest
from appliance.text.grammar import GrammarCompiler
from appliance.text.schema import closed
from tests.unit.text import tiny_tokenizers as tiny

Schema = dict[str, JsonValue]


@pytest.fixture(scope="module")
def compiler() -> Iterator[GrammarCompiler]:
    compiler = GrammarCompiler(tiny.byte_level(), [1])
    yield compiler
    compiler.close()


def nested(num_levels: int, keyword: str) -> Schema:
    schema: Schema = {"type": "string"}
    for level in range(num_levels):
        schema = {keyword: [schema, {"type": "object", "properties": {"a": {"const": level}}}]}
    return schema


def chained(num_links: int, link: Callable[[JsonValue, int], JsonValue]) -> Schema:
    """Definitions of which each uses the next, as `link` says."""
    definitions: dict[str, JsonValue] = {
        f"d{index}": link({"$ref": f"#/$defs/d{index + 1}"}, index) for index in range(num_links)
    }
    return {"$ref": "#/$defs/d0", "$defs": {**definitions, f"d{num_links}": {"type": "string"}}}


REFUSED: dict[str, tuple[Schema, str]] = {
    "not": ({"not": {"type": "string"}}, "uses 'not'"),
    "if": ({"if": {"type": "string"}, "then": {"minLength": 2}}, "uses 'if'"),
    "contains": ({"type": "array", "contains": {"type": "string"}}, "uses 'contains'"),
    "uniqueItems": ({"type": "array", "uniqueItems": True}, "uses 'uniqueItems'"),
    "propertyNames": ({"type": "object", "propertyNames": {"pattern": "a"}}, "'propertyNames'"),
    "oneOf": ({"oneOf": [{"type": "string"}, {"minLength": 2}]}, "use 'anyOf'"),
    "nested oneOf": (nested(25, "oneOf"), "use 'anyOf'"),
    "format": ({"type": "string", "format": "iri"}, "format 'iri'"),
    "look-ahead": ({"type": "string", "pattern": "^(?=a)b"}, "ahead or behind"),
    "back reference": ({"type": "string", "pattern": r"(a)\1"}, "back reference"),
    "broken pattern": ({"type": "string", "pattern": "(("}, "that we cannot read"),
    "remote": ({"$ref": "https://example.com/a.json"}, "another document"),
    "file": ({"$ref": "file:///etc/passwd"}, "another document"),
    "endless": ({"$ref": "#"}, "cannot be satisfied"),
    "contradiction": ({"allOf": [{"type": "string"}, {"type": "integer"}]}, "cannot be satisfied"),
    "type": ({"type": "strng"}, "type 'strng'"),
    "options": ({"x-guidance": {"lenient": True}, "not": {}}, "uses 'x-guidance'"),
    "not a number": ({"const": float("nan")}, "a number"),
    "depth": (nested(200, "anyOf"), "nested deeper"),
    "Python's depth": (nested(20_000, "anyOf"), "nested deeper"),
    "size": ({"enum": ["x" * 300_000]}, "the limit is"),
    "values": ({"enum": list(range(30_000))}, "more than"),
    "huge integers": (
        {"type": "integer", "minimum": -(10**40), "maximum": 10**40},
        "cannot be turned into",
    ),
    "many patterns": (
        {"allOf": [{"type": "string", "pattern": f"^.*a{index}.*$"} for index in range(40)]},
        "too complex",
    ),
    "a chain of patterns": (
        chained(40, lambda ref, i: {"allOf": [ref, {"pattern": f"^.*a{i}.*$"}]}),
        "too complex",
    ),
    "products": (
        {
            "allOf": [
                {"anyOf": [{"properties": {f"p{i}": {"const": j}}} for j in range(4)]}
                for i in range(12)
            ]
        },
        "too complex",
    ),
}
ACCEPTED: dict[str, Schema] = {
    "anything": {},
    "nested anyOf": nested(15, "anyOf"),
    "evil pattern": {"type": "string", "pattern": "(a+)+$"},
    "counted pattern": {"type": "string", "pattern": "^((a{0,100}){0,100}){0,100}b$"},
    "long look-back": {"type": "string", "pattern": "^.*a.{1000}$"},
    "minLength": {"type": "string", "minLength": 10**9},
    "maxLength": {"type": "string", "maxLength": 10**9},
    "maxItems": {"type": "array", "items": {"type": "integer"}, "maxItems": 10**9},
    "minItems": {"type": "array", "minItems": 10**6},
    "long enum": {"enum": [f"value {index}" for index in range(5_000)]},
    "many properties": {"properties": {f"p{i}": {"type": "string"} for i in range(1_000)}},
    "references": chained(40, lambda ref, _: {"anyOf": [ref, {"properties": {"a": ref}}]}),
    "double references": chained(40, lambda ref, _: {"allOf": [ref, ref]}),
    "remarks": {"type": "string", "title": "t", "default": "x", "examples": ["y"], "$comment": "c"},
    "distinct oneOf": {"oneOf": [{"type": "string"}, {"type": "integer"}]},
}


@pytest.mark.parametrize(("schema", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_a_schema_beyond_us_is_refused_in_our_words(
    compiler: GrammarCompiler, schema: Schema, words: str
) -> None:
    started = time.monotonic()
    with pytest.raises(InvalidRequest, match="The JSON schema") as error:
        compiler.json_schema(schema)
    assert words in error.value.message
    assert len(error.value.message) <= 200
    assert error.value.field == "output"
    assert time.monotonic() - started < 5  # 0.5 s of CPU time, on however busy a machine


@pytest.mark.parametrize("schema", ACCEPTED.values(), ids=ACCEPTED.keys())
def test_a_strange_schema_costs_little(compiler: GrammarCompiler, schema: Schema) -> None:
    started = time.process_time()
    grammar = compiler.json_schema(schema)
    assert time.process_time() - started < 2
    constraint, rng = grammar.constraint(), np.random.default_rng(0)
    slowest_s = 0.0
    for _ in range(60):
        logits = rng.normal(size=tiny.byte_level().vocab_size).astype(np.float32)
        before = time.process_time()
        constraint.apply(logits)
        constraint.accept(int(logits.argmax()))
        slowest_s = max(slowest_s, time.process_time() - before)
    assert not constraint.has_failed
    assert slowest_s < 0.2


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"properties": {"a": {}}}, {"properties": {"a": {}}, "additionalProperties": False}),
        (
            {"items": {"properties": {}}},
            {"items": {"properties": {}, "additionalProperties": False}},
        ),
        (
            {"anyOf": [{"properties": {}}, {"type": "null"}]},
            {"anyOf": [{"properties": {}, "additionalProperties": False}, {"type": "null"}]},
        ),
        (
            {"$ref": "#/$defs/a", "$defs": {"a": {"properties": {}}}},
            {
                "$ref": "#/$defs/a",
                "$defs": {"a": {"properties": {}, "additionalProperties": False}},
            },
        ),
    ],
)
def test_an_object_is_held_to_the_properties_it_declares(schema: Schema, expected: Schema) -> None:
    assert closed(schema) == expected


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "object"},
        {"properties": {}, "additionalProperties": True},
        {"properties": {}, "patternProperties": {"^a": {}}},
        {"properties": {}, "required": ["undeclared"]},
        {"properties": {}, "anyOf": [{"properties": {"a": {}}}]},
        {"allOf": [{"properties": {"a": {}}}, {"properties": {"b": {}}}]},
        {"oneOf": [{"properties": {"a": {}}}, {"properties": {"b": {}}}]},
        {"$ref": "#/$defs/a", "properties": {"b": {}}, "$defs": {"a": {"properties": {}}}},
        {"enum": [{"properties": {}}], "default": {"properties": {}}},
        {"properties": [1]},
    ],
)
def test_an_object_that_says_what_else_it_holds_stays_as_it_is(schema: Schema) -> None:
    assert closed(schema) == schema
