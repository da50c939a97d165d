"""The load generator: what it counts and when, however the bytes are cut."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest

from bench.load import (
    Answer,
    LoadFailed,
    Target,
    ask,
    first_token,
    make_prompts,
    measure,
    percentile,
)

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
TIMEOUT_S = 10
Result = TypeVar("Result")
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def event(**content: object) -> bytes:
    return b"data: " + json.dumps(content).encode() + b"\n\n"


def text(words: str) -> bytes:
    return event(choices=[{"index": 0, "text": words}])


def usage(num_tokens: int) -> bytes:
    return event(choices=[], usage={"completion_tokens": num_tokens})


def chunk(payload: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(payload), payload)


STREAM = [chunk(text("one")), chunk(text(" two")), chunk(usage(2)), chunk(b"data: [DONE]\n\n")]
WHOLE = HEAD + b"".join(STREAM) + b"0\r\n\r\n"


def answering(*parts: bytes) -> Handler:
    """A server that reads a request and writes these parts, each on its own."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split()[0])
        await reader.readexactly(length)
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0)

    return handle


def run(handler: Handler, use: Callable[[Target], Awaitable[Result]]) -> Result:
    tasks = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.append(task)
        with contextlib.suppress(ConnectionError):
            await handler(reader, writer)
        writer.close()

    async def main() -> Result:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            try:
                return await use(Target(server.sockets[0].getsockname()[1], "model"))
            finally:
                await asyncio.gather(*tasks)

    return asyncio.run(main())


async def answer_of(target: Target) -> Answer:
    return (await ask(target, "a", 9, timeout_s=TIMEOUT_S)).parse()


def test_each_piece_of_text_has_a_time_and_the_usage_says_how_many_tokens() -> None:
    answer = run(answering(WHOLE), answer_of)
    assert answer.num_tokens == 2
    assert len(answer.text_at_s) == 2
    assert answer.first_token_s > 0


@pytest.mark.parametrize("size", [1, 7, 50])
def test_it_does_not_matter_where_the_bytes_are_cut(size: int) -> None:
    parts = [WHOLE[start : start + size] for start in range(0, len(WHOLE), size)]
    answer = run(answering(*parts), answer_of)
    assert len(answer.text_at_s) == 2
    assert answer.text_at_s == sorted(answer.text_at_s)


def test_an_event_arrives_when_its_last_byte_does() -> None:
    first, second = STREAM[0], STREAM[1]

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HEAD + first + second[:-8])
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.write(second[-8:] + STREAM[2] + STREAM[3] + b"0\r\n\r\n")

    answer = run(handle, answer_of)
    assert answer.gaps_s()[0] >= 0.04


def test_without_usage_the_tokens_asked_for_are_counted() -> None:
    whole = HEAD + STREAM[0] + b"0\r\n\r\n"
    answer = run(answering(whole), answer_of)
    assert answer.num_tokens == 9


def test_an_error_status_is_a_failure_with_the_answer_in_it() -> None:
    refusal = b"HTTP/1.1 503 Service Unavailable\r\n\r\nloading"
    with pytest.raises(LoadFailed, match="503 Service Unavailable loading"):
        run(answering(refusal), answer_of)


def test_an_error_within_the_stream_is_a_failure() -> None:
    whole = HEAD + STREAM[0] + chunk(event(error={"message": "lost"})) + b"0\r\n\r\n"
    with pytest.raises(LoadFailed, match="lost"):
        run(answering(whole), answer_of)


def test_an_answer_that_never_ends_is_a_failure() -> None:
    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    with pytest.raises(LoadFailed, match="no end of an answer within"):
        run(hang, lambda target: ask(target, "a", 9, timeout_s=0.05))


def test_the_first_token_is_asked_for_until_it_comes() -> None:
    answers = iter([b"HTTP/1.1 503 Service Unavailable\r\n\r\n", WHOLE])

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answering(next(answers))(reader, writer)

    checks: list[None] = []
    came_at_s = run(
        handle, lambda target: first_token(target, "a", TIMEOUT_S, lambda: checks.append(None))
    )
    assert came_at_s > 0
    assert len(checks) == 2


def test_a_load_asks_every_prompt_and_adds_up_the_tokens() -> None:
    figures = run(
        answering(WHOLE),
        lambda target: measure(target, ["a"] * 5, concurrency=2, max_tokens=9, timeout_s=TIMEOUT_S),
    )
    assert (figures["num_requests"], figures["num_tokens"]) == (5, 10)
    assert figures["tokens_per_event"] == 1
    assert figures["throughput"] > 0


def test_a_prompt_is_so_many_words_and_the_same_again_for_the_same_seed() -> None:
    prompts = make_prompts(3, 64, "seed")
    assert [len(prompt.split()) for prompt in prompts] == [64] * 3
    assert prompts == make_prompts(3, 64, "seed") != make_prompts(3, 64, "other")


def test_a_percentile_lies_between_its_neighbours() -> None:
    assert percentile([1.0, 2.0, 3.0], 50) == 2.0
    assert 2.9 < percentile([1.0, 2.0, 3.0], 99) <= 3.0
    assert percentile([4.0], 99) == 4.0
