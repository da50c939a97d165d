"""Compiles JSON schemas and tool calls to grammars, and masks the next token by them."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper

from appliance.errors import InvalidRequest
from appliance.text.schema import (
    UNSUPPORTED,
    WHITE_SPACE,
    SchemaChecker,
    reason,
    refusal,
    schema_text,
)
from appliance.text.schema_worker import LIMITS
from appliance.text.tool_calls import (
    HERMES_CLOSE,
    HERMES_OPEN,
    MISTRAL_MARK,
    ToolFormat,
    visible_ids,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pydantic import JsonValue

    from appliance.text.schema import Schema
    from appliance.text.tokenizer import Tokenizer

_OUTPUT = "output"
_TOOLS = "tools"
_OPENING = "\x02"  # a character that joins with no other into one token


class GrammarConstraint:
    """A grammar's state for one sequence: the engine's `Constraint`. For one thread at a time."""

    def __init__(self, matcher: LLMatcher, end_ids: NDArray[np.int64]) -> None:
        self._matcher = matcher
        self._end_ids = end_ids

    def apply(self, logits: NDArray[np.float32]) -> None:
        """Set the logits [V] of forbidden tokens to minus infinity; V may be padded."""
        if not self._matcher.is_stopped():
            allowed = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
            # A mask without a token, or an error: the sequence can only end.
            if allowed.any() and not self._matcher.is_error():
                num_tokens = min(len(logits), 8 * len(allowed))
                forbidden = np.unpackbits(~allowed, count=num_tokens, bitorder="little")
                np.putmask(logits[:num_tokens], forbidden.view(np.bool_), -np.inf)
                logits[num_tokens:] = -np.inf
                return
        end_logits = logits[self._end_ids]
        logits.fill(-np.inf)
        logits[self._end_ids] = end_logits

    def accept(self, token_id: int) -> None:
        """Advance by the token that was sampled."""
        if not self._matcher.is_stopped():
            self._matcher.consume_token(token_id)

    @property
    def is_complete(self) -> bool:
        """True when nothing but the end may follow."""
        return self._matcher.is_stopped()

    @property
    def has_failed(self) -> bool:
        """True when the grammar passed a limit: the text so far is not whole."""
        return self._matcher.is_error()


class CompiledGrammar:
    """A grammar ready for use; every sequence takes a constraint of its own."""

    def __init__(self, matcher: LLMatcher, end_ids: NDArray[np.int64]) -> None:
        self._matcher = matcher
        self._end_ids = end_ids
        self._lock = threading.Lock()

    def constraint(self) -> GrammarConstraint:
        with self._lock:
            return GrammarConstraint(self._matcher.deep_copy(), self._end_ids)


class GrammarCompiler:
    """Compiles grammars over one model's tokens; keeps the last `cache_size`. For any thread.

    Compiling takes milliseconds to two seconds, the first time also a process and the token trie:
    call it in a thread.
    """

    def __init__(
        self, tokenizer: Tokenizer, end_ids: Sequence[int], *, cache_size: int = 64
    ) -> None:
        self._tokenizer = tokenizer
        known = sorted(token_id for token_id in end_ids if token_id < tokenizer.vocab_size)
        self._end_ids = np.array(known, dtype=np.int64)
        self._checker = SchemaChecker()
        self._cache: OrderedDict[str, CompiledGrammar] = OrderedDict()
        self._cache_size = cache_size
        self._lock = threading.Lock()
        self._trie: LLTokenizer | None = None

    def json_object(self) -> CompiledGrammar:
        """Compile a grammar of any JSON object."""
        return self.json_schema({"type": "object"})

    def json_schema(self, schema: Schema, *, field: str = _OUTPUT) -> CompiledGrammar:
        """Compile a grammar of JSON that fits `schema`; refuse a schema beyond the grammars."""
        text = schema_text(schema, field)
        return self._cached(text, lambda: self._checker.grammar(text, field), field)

    def tool_call(
        self, tools: Mapping[str, Schema], tool_format: ToolFormat, *, named: str | None = None
    ) -> CompiledGrammar:
        """Compile one call of one of `tools` (name to its parameters' schema), or of `named`."""
        chosen = tools if named is None else {named: tools[named]}
        return self._tool_grammar(chosen, tool_format, "start: call")

    def optional_tool_calls(
        self, tools: Mapping[str, Schema], tool_format: ToolFormat
    ) -> CompiledGrammar | None:
        """Compile free text in which everything that begins as a call is one.

        Returns None, no constraint, if no token marks a call or a tool's schema is too much: a
        client that leaves the choice to the model was promised nothing about the arguments.
        """
        opening = {ToolFormat.HERMES: HERMES_OPEN, ToolFormat.MISTRAL: MISTRAL_MARK}
        if tool_format not in opening or self._tokenizer.token_id(opening[tool_format]) is None:
            return None
        try:
            return self._tool_grammar(tools, tool_format, "start: (TEXT? call)* TEXT?")
        except InvalidRequest as error:
            if error.code == UNSUPPORTED:
                return None
            raise

    def close(self) -> None:
        self._checker.close()

    def _tool_grammar(
        self, tools: Mapping[str, Schema], tool_format: ToolFormat, start: str
    ) -> CompiledGrammar:
        if not tools:
            raise InvalidRequest("`tools` must name at least one tool.", field=_TOOLS)
        texts = {
            name: schema_text(_arguments_schema(schema), _TOOLS) for name, schema in tools.items()
        }
        rules = [start, r"TEXT: /(.|\n)+/", self._call_rule(tool_format)]
        rules.append("body: " + " | ".join(f"tool_{index}" for index in range(len(texts))))
        key = "parameters" if tool_format is ToolFormat.LLAMA3 else "arguments"
        for index, (name, text) in enumerate(texts.items()):
            opening = f'{{"name": {json.dumps(name, ensure_ascii=False)}, "{key}": '
            options = json.dumps({"whitespace_pattern": WHITE_SPACE})
            rules.append(f'tool_{index}: {_literal(opening)} arguments_{index} "}}"')
            rules.append(f'arguments_{index}: %json {{"x-guidance": {options}, {text[1:]}')

        def grammar() -> str:
            for text in texts.values():
                self._checker.grammar(text, _TOOLS)
            return LLMatcher.grammar_from_lark("\n".join(rules))

        return self._cached("\n".join(rules), grammar, _TOOLS)

    def _call_rule(self, tool_format: ToolFormat) -> str:
        match tool_format:
            case ToolFormat.HERMES:
                opening, closing = self._mark(HERMES_OPEN), self._mark(HERMES_CLOSE)
                return rf'call: {opening} "\n"? body "\n"? {closing}'
            case ToolFormat.MISTRAL:
                return f'call: {self._mark(MISTRAL_MARK)} " "? "[" body "]"'
            case ToolFormat.LLAMA3:
                return "call: body"

    def _mark(self, text: str) -> str:
        token_id = self._tokenizer.token_id(text)
        return _literal(text) if token_id is None else f"<[{token_id}]>"

    def _cached(self, key: str, grammar: Callable[[], str], field: str) -> CompiledGrammar:
        with self._lock:
            if key in self._cache:
                self._cache.move_to_end(key)
                return self._cache[key]
        compiled = self._compile(grammar(), field)
        with self._lock:
            self._cache[key] = compiled
            while len(self._cache) > self._cache_size:
                self._cache.popitem(last=False)
        return compiled

    def _compile(self, grammar: str, field: str) -> CompiledGrammar:
        matcher = LLMatcher(self._tokens(), grammar, log_level=0, limits=LIMITS)
        if not matcher.is_error():
            # The first mask does the lazy part of the work, and shows whether anything can follow.
            is_possible = any(matcher.compute_bitmask())
            if is_possible and not matcher.is_error():
                return CompiledGrammar(matcher, self._end_ids)
        raise refusal(reason(matcher.get_error() or "no extension"), field)

    def _tokens(self) -> LLTokenizer:
        with self._lock:
            if self._trie is None:
                end_ids: list[int] = self._end_ids.tolist()
                vocabulary = _Vocabulary(self._tokenizer, end_ids)
                if not end_ids or not vocabulary.is_exact:
                    raise InvalidRequest(
                        "This model's tokenizer does not allow constrained output. Ask for text."
                    )
                self._trie = LLTokenizer(TokenizerWrapper(vocabulary), eos_token=end_ids)
            return self._trie


class _Vocabulary:
    """Presents our tokens in the shape that llguidance needs."""

    bos_token_id = None

    def __init__(self, tokenizer: Tokenizer, end_ids: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self.eos_token_id = min(end_ids, default=None)
        self.tokens = [tokenizer.token_bytes(index) for index in range(tokenizer.vocab_size)]
        # A mark is never a part of free text, whether or not the tokenizer calls it special.
        self.special_token_ids = sorted(tokenizer.special_ids | visible_ids(tokenizer))

    @property
    def is_exact(self) -> bool:
        """Return True if tokens add up to a text, as grammars assume."""
        probe = '{"a": [1, "b c"]}'
        return b"".join(self.tokens[token_id] for token_id in self(probe)) == probe.encode()

    def __call__(self, text: str) -> list[int]:
        """Encode text in the middle of an answer: no token may add a space of its own."""
        ids = self._tokenizer.encode(_OPENING + text, add_special_tokens=False)
        opening = b""
        while ids and not opening.endswith(_OPENING.encode()):
            opening += self._tokenizer.token_bytes(ids.pop(0))
        return ids


def _arguments_schema(schema: Schema) -> Schema:
    """Return the schema of a tool's arguments: an object, empty if none are declared."""
    if schema.get("type", "object") != "object":
        raise InvalidRequest("A tool's parameters must be a schema of an object.", field=_TOOLS)
    declares = schema.keys() - {"type"}
    nothing: dict[str, JsonValue] = {} if declares else {"properties": {}}
    return {"type": "object", **schema, **nothing}


def _literal(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
