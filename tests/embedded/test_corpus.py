"""What the generator writes is repeatable, varied, and true where truth can be checked."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Mapping
from itertools import islice, pairwise
from typing import Any

import pytest

from pebble import arithmetic, json_answers, tool_calls
from pebble.conversation import Writer
from pebble.corpus import KINDS, Document, documents, sentences, split
from pebble.grammar import expand
from pebble.stories import story

NUM_DOCUMENTS = 4000


@pytest.fixture(scope="module")
def written() -> list[Document]:
    return list(islice(documents(7), NUM_DOCUMENTS))


def test_a_seed_always_writes_the_same_documents(written: list[Document]) -> None:
    assert list(islice(documents(7), NUM_DOCUMENTS)) == written


def test_another_seed_writes_other_documents(written: list[Document]) -> None:
    assert list(islice(documents(8), 100)) != written[:100]


def test_thousands_of_sentences_are_distinct(written: list[Document]) -> None:
    assert len(set().union(*(sentences(document.text) for document in written))) > 10_000


def test_every_kind_is_written(written: list[Document]) -> None:
    assert {document.kind for document in written} == set(KINDS)


def test_no_template_marks_are_left_in_stories_and_talk(written: list[Document]) -> None:
    texts = [
        document.text for document in written if document.kind in ("story", "chat", "knowledge")
    ]
    assert not [text for text in texts if re.search(r"[\[\]{}]", text)]


def test_documents_begin_and_end_with_their_tokens(written: list[Document]) -> None:
    for document in written:
        assert document.text.startswith("<|begin|>")
        assert document.text.count("<|begin|>") == 1
        assert document.text.endswith("<|end|>")


def test_held_out_documents_are_not_in_the_training_text() -> None:
    train, held_out = split(3, 3000, 300)
    assert len(held_out) == 300
    assert not {document.text for document in train} & {document.text for document in held_out}


def test_a_story_keeps_to_the_hero_it_was_given() -> None:
    for seed in range(200):
        text = story(random.Random(seed), hero="Quentin", kind="fox")
        assert text.count("Quentin") >= 2
        assert "fox" in text


def test_every_equation_in_the_sums_is_true() -> None:
    rng = random.Random(5)
    text = "\n".join(
        _texts(rng, arithmetic.bare_sum, 400)
        + _texts(rng, arithmetic.word_problem, 400)
        + [arithmetic.table(rng) for _ in range(50)]
    )
    equations = re.findall(r"(\d+) ([-+*/]) (\d+) = (\d+)", text)
    assert len(equations) > 800
    for one, operator, two, result in equations:
        assert _compute(int(one), operator, int(two)) == int(result)


def _compute(one: int, operator: str, two: int) -> float:
    return {"+": one + two, "-": one - two, "*": one * two, "/": one / two if two else 0}[operator]


def _texts(rng: random.Random, writer: Writer, count: int) -> list[str]:
    return [
        str(turn["content"])
        for _ in range(count)
        for turn in writer(rng).messages
        if turn["role"] == "assistant"
    ]


def test_every_json_answer_is_json() -> None:
    rng = random.Random(5)
    for writer in (json_answers.extraction, json_answers.invention, json_answers.sums):
        for text in _texts(rng, writer, 200):
            json.loads(text)


def _calls_in(turn: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [call["function"] for call in turn.get("tool_calls", [])]


def test_every_tool_call_names_an_offered_tool_and_gives_what_it_requires() -> None:
    rng = random.Random(5)
    for _ in range(400):
        conversation = tool_calls.tool_call(rng)
        functions: list[Any] = [tool["function"] for tool in conversation.tools]
        offered = {function["name"]: function["parameters"] for function in functions}
        calls = [call for turn in conversation.messages for call in _calls_in(turn)]
        assert calls
        for call in calls:
            schema = offered[call["name"]]
            assert set(schema["required"]) <= set(call["arguments"]) <= set(schema["properties"])


def test_arguments_are_copied_from_the_words_of_the_user() -> None:
    rng = random.Random(5)
    for _ in range(400):
        for asked, called in pairwise(tool_calls.tool_call(rng).messages):
            for call in _calls_in(called):
                values = [str(value) for value in call["arguments"].values()]
                assert all(value in str(asked["content"]) for value in values)


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("[a kind] and [A noun]", "an owl and A hat"),
        ("[Kind]", "Owl"),
        ("{x|x} {y{1|1}|y1}", "x y1"),
    ],
)
def test_templates_expand(template: str, text: str) -> None:
    assert expand(random.Random(0), template, {"kind": "owl", "noun": "hat"}) == text
