"""Decides which JSON schemas become grammars, and words the refusal of the others."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from llguidance import LLMatcher

from appliance.errors import InvalidRequest
from appliance.text.confined import ConfinedProcess, Limits

if TYPE_CHECKING:
    from pydantic import JsonValue

Schema = Mapping[str, "JsonValue"]

UNSUPPORTED = "unsupported_schema"

# Between two tokens of JSON: nothing, a space, or a new line with its indent; never without end.
WHITE_SPACE = r"( |\n {0,24})?"

_WORKER = "appliance.text.schema_worker"
_MAX_DEPTH = 64  # of the JSON text: about 30 objects in each other
_MAX_NODES = 20_000
_MAX_CHARS = 200_000
_MAX_REASON_CHARS = 120

_REMARKS = frozenset(
    {"$schema", "$id", "$comment", "title", "description", "default", "examples", "deprecated"}
)
_ONLY_OPTIONS = _REMARKS | {"anyOf", "$defs", "definitions"}
_ONLY_PROPERTIES = _REMARKS | {"type", "properties", "required", "$defs", "definitions"}

# What llguidance says, and what we say.
_REASONS: Final[tuple[tuple[str, str], ...]] = (
    (r'Unimplemented keys: \["([^"]{1,40})"', "uses {!r}, which is not supported"),
    (r"oneOf constraints", "uses 'oneOf' with options that overlap; use 'anyOf'"),
    (r"Unknown format: (\S{1,40})", "uses the format {!r}, which is not supported"),
    (r"Resource .* not present", "has a '$ref' to another document; put it under '$defs'"),
    (r"look-around", "has a 'pattern' that looks ahead or behind, which is not supported"),
    (r"backreferences", "has a 'pattern' with a back reference, which is not supported"),
    (r"regex parse error", "has a 'pattern', or a length, that we cannot read"),
    (r"(?i)unsatisfiable|no extension|NoExtension", "cannot be satisfied by any value"),
    (r"(?i)too (big|large|complex|many)|limit|fuel|exceeded|Unable to determine", "is too complex"),
    (r"Invalid type: (\S{1,40})", "has the type {!r}, which JSON does not know"),
    (r"min/maxProperties", "uses 'minProperties' or 'maxProperties' where not all are required"),
)


class SchemaChecker:
    """Decides on a schema without risk to the server: costly work runs confined."""

    def __init__(self) -> None:
        self._process = ConfinedProcess(_WORKER, {}, Limits(cpu_time_s=0.5))

    def grammar(self, text: str, field: str) -> str:
        """Return the grammar of a text from `schema_text`, known to compile within our limits."""
        grammar = LLMatcher.grammar_from_json_schema(
            text, overrides={"whitespace_pattern": WHITE_SPACE, "lenient": False}
        )
        reply = self._process.ask(grammar)
        if "error" in reply:
            is_limit = reply["error"] == "limit"
            raise refusal("is too complex" if is_limit else reason(reply["message"]), field)
        return grammar

    def close(self) -> None:
        self._process.close()


def schema_text(schema: Schema, field: str) -> str:
    """Return the JSON text of a schema of reasonable size, its objects closed."""
    text = _json_text(schema, field)
    _refuse_oversized(schema, text, field)
    if "x-guidance" in schema:
        raise refusal("uses 'x-guidance', which is not supported", field)
    return json.dumps(closed(dict(schema)))


def closed(schema: JsonValue) -> JsonValue:
    """Restrict objects to the properties they declare, unless they say otherwise.

    What fits it fits the original, and a weak model cannot invent properties without end. Left as
    it is where schemas are combined in ways that would make this a contradiction.
    """
    return schema if _is_combined(schema) else _closed(schema)


def _is_combined(value: JsonValue) -> bool:
    if isinstance(value, dict):
        combines = "allOf" in value or "oneOf" in value or value.keys() >= {"$ref", "properties"}
        return combines or any(map(_is_combined, value.values()))
    return isinstance(value, list) and any(map(_is_combined, value))


def _closed(schema: JsonValue) -> JsonValue:
    if not isinstance(schema, dict):
        return schema
    result = dict(schema)
    for keyword in ("properties", "$defs", "definitions"):
        if isinstance(named := schema.get(keyword), dict):
            result[keyword] = {name: _closed(value) for name, value in named.items()}
    if "items" in schema:
        result["items"] = _closed(schema["items"])
    if isinstance(options := schema.get("anyOf"), list) and schema.keys() <= _ONLY_OPTIONS:
        result["anyOf"] = [_closed(option) for option in options]
    if isinstance(declared := schema.get("properties"), dict) and schema.keys() <= _ONLY_PROPERTIES:
        required = schema.get("required", [])
        if isinstance(required, list) and all(name in declared for name in required):
            result["additionalProperties"] = False
    return result


def refusal(why: str, field: str) -> InvalidRequest:
    return InvalidRequest(f"The JSON schema {why}.", field=field, code=UNSUPPORTED)


def reason(message: str) -> str:
    """Translate llguidance's message into ours."""
    for pattern, words in _REASONS:
        if match := re.search(pattern, message):
            return words.format(*match.groups())
    first_line = message.partition("\n")[0][:_MAX_REASON_CHARS]
    return f"cannot be turned into a grammar: {first_line}"


def _json_text(schema: Schema, field: str) -> str:
    try:
        return json.dumps(schema, allow_nan=False)
    except RecursionError:
        raise refusal(f"is nested deeper than {_MAX_DEPTH} levels", field) from None
    except ValueError:
        raise refusal("holds a number that JSON does not know", field) from None


def _refuse_oversized(schema: Schema, text: str, field: str) -> None:
    if len(text) > _MAX_CHARS:
        raise refusal(f"has {len(text)} characters; the limit is {_MAX_CHARS}", field)
    num_nodes = 0
    level: list[JsonValue] = [dict(schema)]
    for _ in range(_MAX_DEPTH):
        level = [child for value in level for child in _children(value)]
        num_nodes += len(level)
        if num_nodes > _MAX_NODES:
            raise refusal(f"has more than {_MAX_NODES} values", field)
    if level:
        raise refusal(f"is nested deeper than {_MAX_DEPTH} levels", field)


def _children(value: JsonValue) -> list[JsonValue]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []
