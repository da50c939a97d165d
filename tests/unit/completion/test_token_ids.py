"""The ids of an answer: every sampled one, in order, also where the text stops before them."""

from __future__ import annotations

import asyncio

import pytest

from appliance.completion import Delta, ToolChoice
from tests.unit.completion.test_service import END, TOKENIZER, WEATHER, Bench, chat, request

STORY = "one two three four five six"


def ids_of(text: str) -> list[int]:
    return TOKENIZER.encode(text, add_special_tokens=False)


def test_the_ids_are_those_of_the_text_and_the_stop_token() -> None:
    completion = Bench("a little fox").complete(returns_token_ids=True)
    assert completion.choices[0].token_ids == [*ids_of("a little fox"), END]
    assert completion.choices[0].text == "a little fox"
    assert completion.usage.completion_tokens == len(completion.choices[0].token_ids)


def test_the_prompts_ids_are_what_the_model_read() -> None:
    bench = Bench("a")
    completion = bench.complete(prompt="Once upon")
    assert list(completion.prompt_ids) == asyncio.run(bench.service.tokenize("Once upon"))
    assert bench.complete(prompt=(5, 6, 7)).prompt_ids == (5, 6, 7)


def test_an_answer_cut_by_its_limit_has_as_many_ids() -> None:
    completion = Bench("a little fox").complete(returns_token_ids=True, max_new_tokens=2)
    assert completion.choices[0].token_ids == ids_of("a little fox")[:2]


@pytest.mark.parametrize("stop", [" four", "fo", "three f", "e four fi"])
def test_with_a_stop_string_the_ids_end_with_the_token_that_completes_it(stop: str) -> None:
    bench = Bench(STORY)
    [choice] = bench.complete(returns_token_ids=True, stop=(stop,)).choices
    assert choice.text == STORY[: STORY.index(stop)]
    assert choice.token_ids == ids_of(STORY)[: len(choice.token_ids)]
    assert stop in TOKENIZER.decode(tuple(choice.token_ids), skip_special_tokens=False)
    without_last = TOKENIZER.decode(tuple(choice.token_ids[:-1]), skip_special_tokens=False)
    assert stop not in without_last


def test_a_call_that_shows_no_text_has_its_ids() -> None:
    call = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n</tool_call>'
    bench = Bench(call)
    prompt = chat("Hi", tools=(WEATHER,), tool_choice=ToolChoice(kind="required"))
    completion = bench.complete(prompt=prompt, returns_token_ids=True, max_new_tokens=100)
    [choice] = completion.choices
    assert choice.text == ""
    assert choice.tool_calls
    assert len(choice.token_ids) == completion.usage.completion_tokens
    assert "Oslo" in TOKENIZER.decode(tuple(choice.token_ids), skip_special_tokens=False)


def test_deltas_bring_every_id_once() -> None:
    deltas: list[Delta] = []

    async def read(bench: Bench) -> None:
        stream = await bench.service.start(
            request(n=2, seed=3, temperature=1.0, returns_token_ids=True)
        )
        await bench.finish(wait_for(stream.follow(deltas.append)))
        stream.close()

    async def wait_for(end: asyncio.Future[None]) -> None:
        await end

    bench, again = Bench(), Bench()
    bench.runner.script = again.runner.script = ()
    asyncio.run(read(bench))
    whole = again.complete(n=2, seed=3, temperature=1.0, returns_token_ids=True)
    for choice in whole.choices:
        joined = [i for delta in deltas if delta.index == choice.index for i in delta.token_ids]
        assert joined == choice.token_ids
        assert len(joined) > 1


def test_two_deltas_in_one_have_the_ids_of_both() -> None:
    both = Delta(text="a", token_ids=(1, 2)) + Delta(text="b", token_ids=(3,))
    assert (both.text, both.token_ids) == ("ab", (1, 2, 3))


def test_without_asking_there_are_no_ids() -> None:
    assert Bench("a little fox").complete().choices[0].token_ids == []
