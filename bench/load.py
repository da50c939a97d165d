"""The one load generator: streams of completions over HTTP, timed by when their bytes arrive."""

from __future__ import annotations

import asyncio
import json
import random
import statistics
import string
import time
from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise, product
from typing import NamedTuple

CONNECT_PAUSE_S = 0.005


class LoadFailed(Exception):
    """A request was not answered as a stream of tokens."""


@dataclass(frozen=True, slots=True)
class Target:
    """A server with an OpenAI-like completions endpoint that streams."""

    port: int
    model: str
    path: str = "/v1/completions"
    extra: Mapping[str, object] = field(default_factory=dict)

    def request(self, prompt: str, max_tokens: int) -> bytes:
        body = json.dumps(
            {
                "model": self.model,
                "prompt": prompt,
                "max_tokens": max_tokens,
                "temperature": 0,
                "stream": True,
                "stream_options": {"include_usage": True},
                **self.extra,
            }
        ).encode()
        head = (
            f"POST {self.path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\n"
            "Content-Type: application/json\r\nConnection: close\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body


@dataclass(frozen=True, slots=True)
class Answer:
    """When a request was sent, when each piece of its text arrived, and how many tokens it was."""

    sent_at_s: float
    text_at_s: list[float]
    num_tokens: int

    @property
    def first_token_s(self) -> float:
        return self.text_at_s[0] - self.sent_at_s

    def gaps_s(self) -> list[float]:
        return [late - early for early, late in pairwise(self.text_at_s)]


def make_prompts(count: int, num_tokens: int, seed: object) -> list[str]:
    """Prompts of exactly so many tokens for the checkpoints, different from the first words on."""
    chance = random.Random(str(seed))
    words = ["".join(pair) for pair in product(string.ascii_lowercase, repeat=2)]
    return [" ".join(chance.choices(words, k=num_tokens)) for _ in range(count)]


async def first_token(
    target: Target, prompt: str, timeout_s: float, check_alive: Callable[[], None]
) -> float:
    """Ask until a first token comes; the moment it came."""
    deadline_s = time.perf_counter() + timeout_s
    while True:
        check_alive()
        try:
            answer = (await ask(target, prompt, 1, timeout_s=timeout_s)).parse()
        except (OSError, LoadFailed) as error:
            if time.perf_counter() > deadline_s:
                raise LoadFailed(f"no token within {timeout_s:.0f} s: {error}") from error
            await asyncio.sleep(CONNECT_PAUSE_S)
        else:
            return answer.text_at_s[0]


async def measure(
    target: Target,
    prompts: list[str],
    *,
    concurrency: int,
    max_tokens: int,
    timeout_s: float,
) -> dict[str, float]:
    """All prompts, `concurrency` at a time, each asked for as soon as one before it has ended."""
    waiting = iter(prompts)
    recordings: list[Recording] = []

    async def client() -> None:
        for prompt in waiting:
            recording = await ask(target, prompt, max_tokens, timeout_s=timeout_s)
            recordings.append(recording)

    began_s = time.perf_counter()
    async with asyncio.timeout(timeout_s), asyncio.TaskGroup() as group:
        for _ in range(concurrency):
            group.create_task(client())
    wall_s = time.perf_counter() - began_s
    return summarise([recording.parse() for recording in recordings], wall_s)


def summarise(answers: list[Answer], wall_s: float) -> dict[str, float]:
    num_tokens = sum(answer.num_tokens for answer in answers)
    first_tokens = [answer.first_token_s for answer in answers]
    gaps = [gap for answer in answers for gap in answer.gaps_s()]
    return {
        "throughput": num_tokens / wall_s,
        "ttft_p50": percentile(first_tokens, 50),
        "ttft_p99": percentile(first_tokens, 99),
        "itl_p50": percentile(gaps, 50),
        "itl_p99": percentile(gaps, 99),
        "tokens_per_event": num_tokens / sum(len(answer.text_at_s) for answer in answers),
        "num_requests": len(answers),
        "num_tokens": num_tokens,
    }


def percentile(values: list[float], percent: int) -> float:
    """By linear interpolation; 0 without values."""
    if len(values) < 2:
        return values[0] if values else 0.0
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


async def ask(target: Target, prompt: str, max_tokens: int, *, timeout_s: float) -> Recording:
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()
    request = target.request(prompt, max_tokens)
    transport, reader = await loop.create_connection(
        lambda: _Reader(done), host="127.0.0.1", port=target.port
    )
    sent_at_s = time.perf_counter()
    transport.write(request)
    try:
        await asyncio.wait_for(done, timeout_s)
    except TimeoutError:
        raise LoadFailed(f"no end of an answer within {timeout_s:.0f} s") from None
    finally:
        transport.abort()
    return Recording(sent_at_s, reader.parts, reader.times, max_tokens)


@dataclass(frozen=True, slots=True)
class Recording:
    """The bytes of an answer as they came; reading them waits until nothing is being timed."""

    sent_at_s: float
    parts: list[bytes]
    times: list[float]
    max_tokens: int

    def parse(self) -> Answer:
        return _parse(self.sent_at_s, self.parts, self.times, self.max_tokens)


class _Reader(asyncio.Protocol):
    """Keeps what arrives and when."""

    def __init__(self, done: asyncio.Future[None]) -> None:
        self.parts: list[bytes] = []
        self.times: list[float] = []
        self._done = done

    def data_received(self, data: bytes) -> None:
        self.times.append(time.perf_counter())
        self.parts.append(data)
        if data.endswith(b"0\r\n\r\n"):
            self._finish()

    def connection_lost(self, exc: Exception | None) -> None:
        self._finish()

    def _finish(self) -> None:
        if not self._done.done():
            self._done.set_result(None)


class _Event(NamedTuple):
    data: bytes
    arrived_at_s: float


def _parse(sent_at_s: float, parts: list[bytes], times: list[float], expected: int) -> Answer:
    raw = b"".join(parts)
    head, _, _ = raw.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        shown = raw[:300].decode(errors="replace") or "nothing"
        raise LoadFailed(f"the server answered {' '.join(shown.split())}")
    text_at_s: list[float] = []
    num_tokens = None
    for event in _events(raw, len(head) + 4, parts, times, is_chunked=b"chunked" in head.lower()):
        content = json.loads(event.data)
        if "error" in content:
            raise LoadFailed(f"the stream ended in an error: {event.data[:300]!r}")
        if any(choice.get("text") for choice in content.get("choices") or ()):
            text_at_s.append(event.arrived_at_s)
        if usage := content.get("usage"):
            num_tokens = usage["completion_tokens"]
    if not text_at_s:
        raise LoadFailed("the stream held no text")
    return Answer(sent_at_s, text_at_s, expected if num_tokens is None else num_tokens)


def _events(
    raw: bytes, start: int, parts: list[bytes], times: list[float], *, is_chunked: bool
) -> list[_Event]:
    """The server-sent events with data, each with the time at which its last byte was there."""
    ends, position = [], 0
    for part in parts:
        position += len(part)
        ends.append(position)
    payload, origins = _dechunk(raw, start) if is_chunked else (raw[start:], [(0, start)])
    events, begin = [], 0
    origin_starts = [payload_start for payload_start, _ in origins]
    while (end := payload.find(b"\n\n", begin)) >= 0:
        block = payload[begin:end]
        begin = end + 2
        data = [line[5:].strip() for line in block.split(b"\n") if line.startswith(b"data:")]
        if not data or data == [b"[DONE]"]:
            continue
        piece = bisect_left(origin_starts, begin) - 1  # the chunk that holds the last byte
        payload_start, raw_start = origins[piece]
        raw_end = raw_start + begin - payload_start
        events.append(_Event(b"\n".join(data), times[bisect_left(ends, raw_end)]))
    return events


def _dechunk(raw: bytes, start: int) -> tuple[bytes, list[tuple[int, int]]]:
    """The payload of a chunked body, and where in payload and raw bytes each chunk begins."""
    pieces: list[bytes] = []
    origins: list[tuple[int, int]] = []
    payload_size = 0
    while (line_end := raw.find(b"\r\n", start)) >= 0:
        size = int(raw[start:line_end].split(b";")[0] or b"0", 16)
        if size == 0:
            break
        begin = line_end + 2
        pieces.append(raw[begin : begin + size])
        origins.append((payload_size, begin))
        payload_size += size
        start = begin + size + 2
    return b"".join(pieces), origins
