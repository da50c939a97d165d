"""A completion service that says what a test tells it to, and remembers what it was asked."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence

from appliance.completion import (
    Account,
    ChatPrompt,
    Choice,
    Completion,
    CompletionRequest,
    CompletionService,
    CompletionStream,
    Delta,
    Embeddings,
    Reservation,
    TokenChoice,
    ToolCall,
    Usage,
)
from appliance.errors import InvalidRequest

Script = Callable[[CompletionRequest], Sequence[Delta | Exception]]

PIECES = ("Hello", " there", "!")
PROMPT_IDS = (1, 630, 626, 268, 531)
NUM_CACHED_TOKENS = 2
NUM_NEW_TOKENS = 16  # at most, where a request does not say
FORBIDDEN_TOKEN = 1_000_000


def token(text: str, logprob: float = -0.5, num_top: int = 0) -> TokenChoice:
    others = tuple(
        TokenChoice(token_id=900 + rank, text=f"{text}{rank}", bytes=b"?", logprob=logprob - rank)
        for rank in range(num_top)
    )
    return TokenChoice(
        token_id=len(text), text=text, bytes=text.encode(), logprob=logprob, top=others
    )


def say(
    *pieces: str, finish: bool = True, index: int = 0, num_logprobs: int | None = None
) -> list[Delta]:
    """One delta a piece; the last one ends the choice."""
    return [
        Delta(
            index=index,
            text=piece,
            tokens=() if num_logprobs is None else (token(piece, num_top=num_logprobs),),
            finish_reason="stop" if finish and number == len(pieces) - 1 else None,
        )
        for number, piece in enumerate(pieces)
    ]


def polite_script(request: CompletionRequest) -> list[Delta | Exception]:
    """What a well-behaved model does: a greeting, JSON where it is asked for, or a tool call."""
    pieces = PIECES if request.output.kind == "text" else ('{"city":', ' "Oslo"}')
    if request.max_new_tokens == 0:
        return [Delta(index=index, finish_reason="length") for index in range(request.n)]
    deltas: list[Delta | Exception] = []
    for index in range(request.n):
        if has_forced_tool(request):
            deltas += tool_call_deltas(request, index)
        else:
            deltas += say(*pieces, index=index, num_logprobs=request.num_logprobs)
    return deltas


def has_forced_tool(request: CompletionRequest) -> bool:
    prompt = request.prompt
    return isinstance(prompt, ChatPrompt) and prompt.tool_choice.kind in ("required", "named")


def tool_call_deltas(request: CompletionRequest, index: int) -> list[Delta]:
    assert isinstance(request.prompt, ChatPrompt)
    name = request.prompt.tool_choice.name or request.prompt.tools[0].name
    call = ToolCall(call_id=f"call_{index}", name=name, arguments='{"city": "Oslo"}')
    return [Delta(index=index, tool_calls=(call,), finish_reason="tool_calls")]


def text_of(prompt: str | tuple[int, ...] | ChatPrompt) -> str:
    """A token is a character."""
    assert not isinstance(prompt, ChatPrompt)
    return prompt if isinstance(prompt, str) else "".join(map(chr, prompt))


def refuse_forbidden(prompt: str | tuple[int, ...]) -> None:
    if isinstance(prompt, tuple) and FORBIDDEN_TOKEN in prompt:
        raise InvalidRequest("1000000 is not a token of this model.", field="prompt")


class FakeService(CompletionService):
    """`script` decides the answers, after `delay_s`; with `hold`, they stop and never end."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.script: Script = polite_script
        self.start_error: Exception | None = None
        self.hold = False
        self.delay_s = 0.0
        self.requests: list[CompletionRequest] = []
        self.streams: list[FakeStream] = []
        self.embedded: list[tuple[str | tuple[int, ...], ...]] = []
        self.has_started = threading.Event()
        self.has_closed = threading.Event()

    async def start(self, request: CompletionRequest) -> CompletionStream:
        self.requests.append(request)
        if self.start_error is not None:
            raise self.start_error
        reservation = None
        if request.account is not None:
            num_new = request.n * (request.max_new_tokens or NUM_NEW_TOKENS)
            reservation = request.account.reserve(len(PROMPT_IDS) + num_new)
        stream = FakeStream(self, request, self.script(request), reservation)
        self.streams.append(stream)
        self.has_started.set()
        return stream

    async def complete(self, request: CompletionRequest) -> Completion:
        stream = await self.start(request)
        choices = [Choice(index=index) for index in range(request.n)]

        def add(delta: Delta) -> None:
            choice = choices[delta.index]
            choice.text += delta.text
            choice.tokens.extend(delta.tokens)
            choice.token_ids.extend(delta.token_ids)
            choice.tool_calls.extend(delta.tool_calls)
            choice.finish_reason = delta.finish_reason or choice.finish_reason

        try:
            await stream.follow(add)
        finally:
            stream.close()
        return Completion(
            choices=choices,
            usage=stream.usage,
            prompt_ids=stream.prompt_ids,
            prompt_choices=stream.prompt_choices,
        )

    async def embed(
        self,
        inputs: tuple[str | tuple[int, ...], ...],
        *,
        owner: str = "",
        priority: int = 0,
        account: Account | None = None,
    ) -> Embeddings:
        if account is not None:
            account.reserve(3 * len(inputs)).settle(3 * len(inputs))
        self.embedded.append(inputs)
        for tokens in inputs:
            refuse_forbidden(tokens)
        return Embeddings(vectors=[[0.6, 0.8, 0.0] for _ in inputs], num_tokens=3 * len(inputs))

    async def tokenize(
        self, prompt: str | ChatPrompt, *, add_special_tokens: bool = True
    ) -> list[int]:
        if isinstance(prompt, ChatPrompt):
            prompt = "".join(str(message["content"]) for message in prompt.messages)
        return [1] * add_special_tokens + [ord(character) for character in prompt]

    async def detokenize(self, token_ids: tuple[int, ...]) -> str:
        refuse_forbidden(token_ids)
        return text_of(token_ids)


class FakeStream(CompletionStream):
    def __init__(
        self,
        service: FakeService,
        request: CompletionRequest,
        script: Sequence[Delta | Exception],
        reservation: Reservation | None = None,
    ) -> None:
        self.request = request
        self.is_closed = False
        self.prompt_ids = PROMPT_IDS
        self.prompt_choices: tuple[TokenChoice | None, ...] | None = None
        self._service = service
        self._script = script
        self._num_deltas = 0
        self._reservation = reservation

    def follow(self, take: Callable[[Delta], None]) -> asyncio.Future[None]:
        self.loop = loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        if self._reservation is not None:
            self._reservation.on_end(done.set_exception)
        loop.call_later(self._service.delay_s, self._play, take, done)
        return done

    def _play(self, take: Callable[[Delta], None], done: asyncio.Future[None]) -> None:
        if self.request.num_prompt_logprobs is not None:
            text = text_of(self.request.prompt)
            self.prompt_choices = (None, *(token(character, -1.5, 1) for character in text[1:]))
        for item in self._script:
            if done.done():
                return
            if isinstance(item, Exception):
                done.set_exception(item)
                return
            self._num_deltas += 1
            take(item)
        if not self._service.hold:
            done.set_result(None)

    @property
    def usage(self) -> Usage:
        return Usage(
            prompt_tokens=len(PROMPT_IDS),
            completion_tokens=self._num_deltas,
            cached_tokens=NUM_CACHED_TOKENS,
        )

    def close(self) -> None:
        self.is_closed = True
        if self._reservation is not None:
            self._reservation.settle(self.usage.total_tokens)
        if all(stream.is_closed for stream in self._service.streams):
            self._service.has_closed.set()
