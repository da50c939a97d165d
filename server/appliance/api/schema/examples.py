"""Requests to try from /docs, one or more of each kind, for the model that is running."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import JsonValue

MODEL = "the-model"  # stands for the name of the model that is running

STORY = "Once upon a time"
QUESTION: JsonValue = [{"role": "user", "content": "What is the weather in Oslo?"}]
CITY: JsonValue = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}


Example = Mapping[str, JsonValue]


def example(summary: str, **body: JsonValue) -> Example:
    return {"summary": summary, "value": body}


GENERATE: Mapping[str, Example] = {
    "story": example("A story", prompt=STORY, max_length=80, temperature=0.7),
    "stream": example("As it grows", prompt=STORY, max_new_tokens=60, stream=True),
}

CHAT: Mapping[str, Example] = {
    "question": example("A question", model=MODEL, messages=QUESTION, max_completion_tokens=60),
    "tool": example(
        "A tool call",
        model=MODEL,
        messages=QUESTION,
        tools=[
            {
                "type": "function",
                "function": {
                    "name": "get_weather",
                    "description": "The weather in a city.",
                    "parameters": CITY,
                },
            }
        ],
        tool_choice="required",
    ),
    "schema": example(
        "JSON that fits a schema",
        model=MODEL,
        messages=QUESTION,
        response_format={"type": "json_schema", "json_schema": {"name": "city", "schema": CITY}},
    ),
}

COMPLETIONS: Mapping[str, Example] = {
    "story": example("A story", model=MODEL, prompt=STORY, max_tokens=60, temperature=0.7),
    "score": example(
        "How likely a text is",
        model=MODEL,
        prompt=STORY,
        max_tokens=0,
        echo=True,
        logprobs=1,
    ),
}

EMBEDDINGS: Mapping[str, Example] = {
    "texts": example("Two texts", model=MODEL, input=["A cat sat.", "A dog ran."]),
}

TOKENIZE: Mapping[str, Example] = {
    "text": example("A text", prompt=STORY),
    "chat": example("A conversation", messages=QUESTION),
}

DETOKENIZE: Mapping[str, Example] = {"tokens": example("Some tokens", tokens=[40, 41, 42])}
