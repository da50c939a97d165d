"""Checks that a JSON schema can become a grammar; runs only inside a confined process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llguidance import LLMatcher, LLParserLimits

from appliance.text.confined_worker import WorkerError, serve

# How much work one grammar may be, at compile time and at each token (14 000 fuel a millisecond).
LIMITS = LLParserLimits(
    initial_lexer_fuel=1_000_000,
    step_lexer_fuel=100_000,
    step_max_items=50_000,
    max_items_in_row=10_000,
    max_lexer_states=50_000,
    max_grammar_size=200_000,
    verbose_errors=False,
)


class SchemaWorker:
    """A request is the text of a grammar made from a schema; there is nothing to configure."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        pass

    def prepare(self) -> None:
        self.answer(LLMatcher.grammar_from_json_schema({"type": "object"}))

    def start(self) -> str:
        return ""

    def answer(self, request: str) -> str:
        message = LLMatcher.validate_grammar(request, limits=LIMITS)
        if message:
            raise WorkerError("invalid", message)
        return ""


if __name__ == "__main__":
    serve(SchemaWorker)
