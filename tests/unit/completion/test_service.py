"""What a completion request becomes, with a scripted model and the engine stepped by hand."""

from __future__ import annotations

import asyncio
import gc
import json
import weakref
from collections.abc import Callable, Coroutine
from typing import TypeVar

import pytest
from pydantic import JsonValue

from appliance.completion import (
    ChatPrompt,
    Completion,
    CompletionRequest,
    CompletionService,
    CompletionStream,
    Delta,
    Embeddings,
    OutputFormat,
    Tool,
    ToolChoice,
)
from appliance.completion.service import SamplingDefaults, TextModel
from appliance.engine.engine import Engine
from appliance.engine.sequence import SamplingParams
from appliance.errors import (
    ContextLengthExceeded,
    EngineFailure,
    InvalidRequest,
    NotReady,
    Overloaded,
    QueueTimeout,
)
from appliance.metrics import Metrics
from appliance.models.directory import embedded_model_path, open_model
from appliance.text.chat_template import ChatTemplate
from appliance.text.grammar import GrammarCompiler
from appliance.text.tokenizer import Tokenizer
from appliance.text.tool_calls import ToolFormat
from tests.fakes import FakeClock, FakeRunner

T = TypeVar("T")
CONTEXT = 256
WEATHER = Tool(
    name="get_weather",
    parameters={"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)

DIRECTORY = open_model(embedded_model_path())
TOKENIZER = Tokenizer.from_file(embedded_model_path() / "tokenizer.json")
END = min(DIRECTORY.eos_token_ids)
GRAMMARS = GrammarCompiler(TOKENIZER, [END])


class Bench:
    """A service over a model that says `answer`, and the hand that steps it."""

    def __init__(
        self,
        answer: str | list[int] = "",
        *,
        tool_format: ToolFormat | None = ToolFormat.HERMES,
        has_template: bool = True,
        defaults: SamplingDefaults | None = None,
        max_queued: int = 8,
    ) -> None:
        script = (
            TOKENIZER.encode(answer, add_special_tokens=False)
            if isinstance(answer, str)
            else answer
        )
        self.clock = FakeClock()
        self.metrics = Metrics()
        self.runner = FakeRunner(
            vocab_size=TOKENIZER.vocab_size,
            num_blocks=512,
            max_context_tokens=CONTEXT,
            script=[*script, END],
        )
        self.engine = Engine(
            self.runner,
            max_batch_tokens=64,
            max_sequences=2,
            max_queued=max_queued,
            queue_timeout_s=30,
            observer=self.metrics.observer("tiny"),
            clock=self.clock,
        )
        template = DIRECTORY.chat_template if has_template else None
        model = TextModel(
            tokenizer=TOKENIZER,
            template=ChatTemplate(
                template, DIRECTORY.special_tokens, added_tokens=TOKENIZER.added_tokens
            ),
            grammars=GRAMMARS,
            tool_format=tool_format,
            bos_token_id=DIRECTORY.bos_token_id,
            stop_token_ids=frozenset({END}),
            vocab_size=TOKENIZER.vocab_size,
            max_context_tokens=CONTEXT,
            defaults=defaults or SamplingDefaults(temperature=0.0),
        )
        self.service = CompletionService(self.engine, model)

    async def finish(self, work: Coroutine[object, object, T]) -> T:
        """The result of `work`, with the engine stepped as long as it waits."""
        task = asyncio.ensure_future(work)
        while not task.done():
            self.engine.step()
            await asyncio.sleep(0)
        return task.result()

    def series(self) -> list[str]:
        return self.metrics.render().decode().splitlines()

    def complete(self, **fields: object) -> Completion:
        return asyncio.run(self.finish(self.service.complete(request(**fields))))

    def embed(self, *inputs: str) -> Embeddings:
        return asyncio.run(self.finish(self.service.embed(inputs)))


def request(**fields: object) -> CompletionRequest:
    values: dict[str, object] = {
        "request_id": "test",
        "prompt": "Once",
        "max_new_tokens": 40,
        **fields,
    }
    return CompletionRequest(**values)  # type: ignore[arg-type]


def chat(*texts: str, **fields: object) -> ChatPrompt:
    messages = tuple({"role": "user", "content": text} for text in texts)
    return ChatPrompt(messages=messages, **fields)  # type: ignore[arg-type]


def test_the_answer_is_the_models_text_without_the_stop_token() -> None:
    completion = Bench("a little fox").complete()
    assert completion.choices[0].text == "a little fox"
    assert completion.choices[0].finish_reason == "stop"
    script = TOKENIZER.encode("a little fox", add_special_tokens=False)
    assert completion.usage.completion_tokens == len(script) + 1


def test_a_plain_prompt_begins_with_the_begin_token_exactly_once() -> None:
    bench = Bench("x")
    [first, *rest] = asyncio.run(bench.service.tokenize("Once upon"))
    assert first == DIRECTORY.bos_token_id
    assert first not in rest


def test_an_answer_cut_by_its_limit_says_so() -> None:
    completion = Bench("a little fox").complete(max_new_tokens=2)
    assert completion.choices[0].finish_reason == "length"
    assert completion.usage.completion_tokens == 2


def test_a_stop_string_ends_the_text_before_itself_and_frees_the_sequence() -> None:
    bench = Bench("one two three four five six seven eight nine ten")
    completion = bench.complete(stop=(" four",))
    assert completion.choices[0].text == "one two three"
    assert completion.choices[0].finish_reason == "stop"
    bench.engine.step()
    assert bench.engine.num_used_blocks == 0
    assert 'appliance_finished_sequences_total{model="tiny",reason="stop"} 1.0' in bench.series()


def test_both_limits_are_taken_when_they_end_the_answer_at_the_same_length() -> None:
    prompt_length = len(asyncio.run(Bench().service.tokenize("Once")))
    completion = Bench("a little fox").complete(
        max_new_tokens=2, max_total_tokens=prompt_length + 2
    )
    assert completion.usage.completion_tokens == 2


@pytest.mark.parametrize("difference", [-1, 1])
def test_limits_that_disagree_are_refused_with_both_and_the_prompts_length(difference: int) -> None:
    num_prompt = len(asyncio.run(Bench().service.tokenize("Once")))
    total = num_prompt + 5 + difference
    words = f"is {total} and `max_new_tokens` is 5; the prompt has {num_prompt} tokens"
    with pytest.raises(InvalidRequest, match=words) as caught:
        Bench("a little fox").complete(max_new_tokens=5, max_total_tokens=total)
    assert caught.value.field == "max_total_tokens"


def test_without_a_limit_the_default_counts_or_what_the_context_holds() -> None:
    bench = Bench()
    bench.runner.script = ()
    few = bench.complete(max_new_tokens=None, default_new_tokens=3)
    assert few.usage.completion_tokens == 3
    rest = bench.complete(max_new_tokens=None, default_new_tokens=10 * CONTEXT)
    assert rest.usage.total_tokens == CONTEXT


def test_choices_of_one_request_have_seeds_of_their_own_and_the_first_has_the_requests() -> None:
    bench = Bench()
    bench.runner.script = ()
    texts = [
        choice.text
        for choice in bench.complete(n=3, seed=7, temperature=1.0, max_new_tokens=12).choices
    ]
    assert len(set(texts)) == 3
    again = Bench()
    again.runner.script = ()
    assert again.complete(seed=7, temperature=1.0, max_new_tokens=12).choices[0].text == texts[0]


def test_a_request_that_names_no_temperature_gets_the_models() -> None:
    greedy = Bench(defaults=SamplingDefaults(temperature=0.0))
    greedy.runner.script = ()
    sampled = Bench(defaults=SamplingDefaults(temperature=1.0))
    sampled.runner.script = ()
    assert greedy.complete(seed=1).choices[0].text == greedy.complete(seed=2).choices[0].text
    assert sampled.complete(seed=1).choices[0].text != sampled.complete(seed=2).choices[0].text
    assert (
        sampled.complete(seed=1, temperature=0.0).choices[0].text
        == greedy.complete().choices[0].text
    )


def test_logprobs_come_token_by_token_with_their_alternatives() -> None:
    completion = Bench("a little fox").complete(num_logprobs=2)
    tokens = completion.choices[0].tokens
    assert "".join(token.text for token in tokens) == "a little fox"
    assert all(len(token.top) == 2 and token.logprob <= 0 for token in tokens)
    assert tokens[0].top[0].token_id == tokens[0].token_id


@pytest.mark.parametrize(
    ("stop", "text"), [(" four", "one two three"), ("ree four", "one two th"), ("nine", None)]
)
def test_logprobs_end_where_a_stop_string_ends_the_text(stop: str, text: str | None) -> None:
    answer = "one two three four five"
    choice = Bench(answer).complete(stop=(stop,), num_logprobs=0).choices[0]
    listed = "".join(token.text for token in choice.tokens)
    assert choice.text == (text or answer)
    assert listed.startswith(choice.text)
    assert " four" not in listed or text is None


def test_prompt_logprobs_cover_the_prompt_and_have_none_for_its_first_token() -> None:
    bench = Bench()
    completion = bench.complete(num_prompt_logprobs=0, max_new_tokens=0)
    assert completion.prompt_choices is not None
    assert completion.prompt_choices[0] is None
    assert len(completion.prompt_choices) == completion.usage.prompt_tokens
    assert all(choice is not None for choice in completion.prompt_choices[1:])


def test_a_tool_call_comes_out_as_a_call_and_not_as_text() -> None:
    call = '<tool_call>{"name": "get_weather", "arguments": {"city": "Rome"}}</tool_call>'
    completion = Bench(call).complete(prompt=chat("Weather in Rome?", tools=(WEATHER,)))
    [found] = completion.choices[0].tool_calls
    assert (found.name, json.loads(found.arguments)) == ("get_weather", {"city": "Rome"})
    assert completion.choices[0].text == ""
    assert completion.choices[0].finish_reason == "tool_calls"
    assert found.call_id.startswith("call_")


@pytest.mark.parametrize(
    "choice",
    [ToolChoice(kind="required"), ToolChoice(kind="named", name="get_weather")],
    ids=["required", "named"],
)
def test_a_call_that_is_asked_for_is_made_whatever_the_model_would_rather_say(
    choice: ToolChoice,
) -> None:
    prompt = chat("Hello", tools=(WEATHER,), tool_choice=choice)
    completion = Bench("I would rather tell a story.").complete(prompt=prompt, max_new_tokens=150)
    [found] = completion.choices[0].tool_calls
    assert found.name == "get_weather"


def test_a_call_that_was_asked_for_and_is_cut_short_is_not_shown_as_text() -> None:
    prompt = chat("Hello", tools=(WEATHER,), tool_choice=ToolChoice(kind="required"))
    choice = Bench("x").complete(prompt=prompt, max_new_tokens=3).choices[0]
    assert (choice.text, choice.tool_calls, choice.finish_reason) == ("", [], "length")


def test_with_tool_choice_none_what_looks_like_a_call_is_text() -> None:
    call = '<tool_call>{"name": "get_weather", "arguments": {"city": "Rome"}}</tool_call>'
    prompt = chat("Hi", tools=(WEATHER,), tool_choice=ToolChoice(kind="none"))
    choice = Bench(call).complete(prompt=prompt).choices[0]
    assert choice.tool_calls == []
    assert choice.finish_reason == "stop"


def test_with_tool_choice_none_the_model_is_not_told_of_the_tools() -> None:
    bench = Bench("No.")
    without = asyncio.run(bench.service.tokenize(chat("Hi")))
    none = chat("Hi", tools=(WEATHER,), tool_choice=ToolChoice(kind="none"))
    assert asyncio.run(bench.service.tokenize(none)) == without
    assert bench.complete(prompt=none).choices[0].tool_calls == []


def test_a_schema_is_kept_whatever_the_model_would_rather_say() -> None:
    schema: dict[str, JsonValue] = {
        "type": "object",
        "properties": {"age": {"enum": [3, 4]}},
        "required": ["age"],
    }
    completion = Bench("No!").complete(output=OutputFormat(kind="json_schema", schema=schema))
    assert json.loads(completion.choices[0].text)["age"] in (3, 4)


def test_an_embedding_has_length_one_and_repeats() -> None:
    bench = Bench()
    embeddings = bench.embed("a fox", "a fox", "a bear")
    first, second, third = embeddings.vectors
    assert first == second != third
    assert sum(value * value for value in first) == pytest.approx(1.0)
    assert embeddings.num_tokens == sum(
        len(asyncio.run(bench.service.tokenize(text))) for text in ("a fox", "a fox", "a bear")
    )


def test_tokens_go_back_to_the_text_they_came_from() -> None:
    service = Bench().service
    ids = asyncio.run(service.tokenize("Grüße, 🦊!", add_special_tokens=False))
    assert asyncio.run(service.detokenize(tuple(ids))) == "Grüße, 🦊!"


def test_a_long_text_is_tokenized_like_a_short_one() -> None:
    service = Bench().service
    ids = asyncio.run(service.tokenize("fox " * 10_000, add_special_tokens=False))
    assert asyncio.run(service.detokenize(tuple(ids))) == "fox " * 10_000


REFUSALS: dict[str, tuple[Callable[[], Bench], dict[str, object], type[Exception], str]] = {
    "an empty prompt of tokens": (Bench, {"prompt": ()}, InvalidRequest, "empty"),
    "a token that does not exist": (Bench, {"prompt": (999_999,)}, InvalidRequest, "999999"),
    "max_length below the prompt": (
        Bench, {"max_total_tokens": 1}, InvalidRequest, "`max_total_tokens` is 1"),
    "more tokens than the context": (
        Bench, {"max_new_tokens": 1000}, ContextLengthExceeded, "holds 256"),
    "a prompt as long as the context": (
        Bench, {"prompt": (5,) * 256, "max_new_tokens": None}, ContextLengthExceeded, "256 tokens"),
    "a chat without a template": (
        lambda: Bench(has_template=False), {"prompt": chat("Hi")}, InvalidRequest,
        "no chat template"),
    "tools the template cannot show": (
        lambda: Bench(tool_format=None), {"prompt": chat("Hi", tools=(WEATHER,))}, InvalidRequest,
        "no tool calls"),
    "a bias for a token that does not exist": (
        Bench, {"logit_bias": {999_999: 1.0}}, InvalidRequest, "logit_bias"),
    "more choices than the queue takes": (
        lambda: Bench(max_queued=0), {"n": 3}, Overloaded, "busy"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSALS)
def test_what_cannot_be_honoured_is_refused_before_anything_runs(name: str) -> None:
    make, fields, error, words = REFUSALS[name]
    bench = make()
    with pytest.raises(error, match=words):
        bench.complete(**fields)
    bench.engine.step()
    assert bench.engine.num_used_blocks == bench.engine.num_running == bench.engine.num_waiting == 0


def test_a_failed_pass_is_an_engine_failure_and_the_next_request_works() -> None:
    bench = Bench("fine")
    bench.runner.num_failures_left = 1
    with pytest.raises(EngineFailure):
        bench.complete()
    assert bench.complete().choices[0].text == "fine"


@pytest.mark.parametrize("work", ["complete", "embed"])
def test_a_sequence_runs_for_its_request_s_owner_at_its_priority(work: str) -> None:
    bench = Bench("fine")

    async def scenario() -> None:
        service, late = bench.service, request(owner="anna", priority=2, n=2)
        texts = ("a fox", "a bear")
        answer: asyncio.Future[object] = asyncio.ensure_future(
            service.embed(texts, owner="anna", priority=2)
            if work == "embed"
            else service.complete(late)
        )
        await asyncio.sleep(0)
        sequences = list(bench.engine._scheduler.sequences)
        assert [(s.owner, s.priority) for s in sequences] == [("anna", 2)] * 2
        await bench.finish(waiting_result(answer))

    asyncio.run(scenario())


def test_a_request_pushed_out_of_a_full_queue_is_answered_as_overload() -> None:
    bench = Bench("fine", max_queued=1)

    async def scenario() -> None:
        running = [bench.engine.submit([5], sampling(), owner="greedy") for _ in range(2)]
        bench.engine.step()
        late = bench.service.complete(request(owner="greedy"))
        waiting: asyncio.Future[object] = asyncio.ensure_future(late)
        await asyncio.sleep(0)
        bench.engine.submit([5], sampling(), owner="modest")
        with pytest.raises(Overloaded, match="gave its place in the queue"):
            await bench.finish(waiting_result(waiting))
        for stream in running:
            stream.cancel()

    asyncio.run(scenario())


@pytest.mark.parametrize("work", ["complete", "embed"])
def test_who_waits_too_long_is_told_so(work: str) -> None:
    bench = Bench()
    bench.runner.script = ()

    async def crowd() -> None:
        running = [bench.engine.submit([5], sampling(), None) for _ in range(2)]
        bench.engine.step()
        service = bench.service
        late = service.embed(("late",)) if work == "embed" else service.complete(request())
        waiting: asyncio.Future[object] = asyncio.ensure_future(late)
        await asyncio.sleep(0)
        bench.clock.advance(31)
        with pytest.raises(QueueTimeout):
            await bench.finish(waiting_result(waiting))
        for stream in running:
            stream.cancel()

    asyncio.run(crowd())


def test_a_drain_that_cuts_an_answer_says_that_the_server_went() -> None:
    bench = Bench()
    bench.runner.script = ()

    async def cut() -> None:
        answer = asyncio.ensure_future(bench.service.complete(request(max_new_tokens=200)))
        await asyncio.sleep(0)
        bench.engine.step()
        drain = asyncio.ensure_future(bench.engine.drain(0.0))
        with pytest.raises(NotReady):
            await bench.finish(waiting_result(answer))
        await drain

    asyncio.run(cut())


def test_closing_a_stream_frees_all_of_its_sequences() -> None:
    bench = Bench()
    bench.runner.script = ()

    async def leave() -> None:
        stream = await bench.service.start(request(n=2, max_new_tokens=100))
        bench.engine.step()
        assert bench.engine.num_running == 2
        stream.close()
        bench.engine.step()
        assert bench.engine.num_used_blocks == 0
        assert (
            'appliance_finished_sequences_total{model="tiny",reason="cancelled"} 2.0'
            in bench.series()
        )

    asyncio.run(leave())


def test_an_answer_that_nobody_can_take_does_not_run_on() -> None:
    """Not even where its text had come to an end, of which the engine had not heard."""
    bench = Bench(WORDS * 3)

    def refuse(_: Delta) -> None:
        raise ValueError("of the reader")

    async def scenario() -> None:
        stream = await bench.service.start(request(max_new_tokens=60, stop=("a",)))
        with pytest.raises(ValueError, match="of the reader"):
            await bench.finish(waiting_result(stream.follow(refuse)))
        stream.close()
        bench.engine.step()
        assert bench.engine.num_running == 0

    asyncio.run(scenario())


@pytest.mark.parametrize("num_steps", [0, 100])
def test_an_answer_leaves_nothing_for_the_garbage_collector(num_steps: int) -> None:
    """Whether it is followed while it comes or when it is all there."""

    async def scenario() -> None:
        bench = Bench("a little fox")
        stream = await bench.service.start(request(n=2))
        for _ in range(num_steps):
            bench.engine.step()
            await asyncio.sleep(0)
        texts: list[str] = []
        await bench.finish(read_texts(stream, texts))
        for _ in range(3):
            bench.engine.step()
            await asyncio.sleep(0)
        stream.close()
        is_there = weakref.ref(stream)
        del stream
        assert is_there() is None

    gc.disable()
    try:
        asyncio.run(scenario())
    finally:
        gc.enable()


async def waiting_result(task: asyncio.Future[T]) -> T:
    return await task


def sampling() -> SamplingParams:
    return SamplingParams(max_new_tokens=200, seed=0, temperature=0.0)


WORDS = "a little fox lived in the old forest and walked to the river every day to drink"


async def read_texts(stream: CompletionStream, texts: list[str]) -> None:
    await stream.follow(lambda delta: texts.append(delta.text))


def test_what_waited_is_told_before_the_failure_that_ended_it() -> None:
    async def scenario() -> str:
        bench = Bench(WORDS * 3)
        stream = await bench.service.start(request(max_new_tokens=60))
        for _ in range(25):
            bench.engine.step()
        bench.runner.num_failures_left = 1
        bench.engine.step()
        texts: list[str] = []
        with pytest.raises(EngineFailure):
            await read_texts(stream, texts)
        return "".join(texts)

    text = asyncio.run(scenario())
    assert len(text) > 20
    assert (WORDS * 3).startswith(text)
