"""The deltas of one request, all of its choices mixed, in the order the engine makes them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from appliance.completion.answer import Choice, Completion, Delta, TokenChoice, Usage
from appliance.completion.choice import ChoiceDecoder, token_choice
from appliance.engine.sequence import FinishReason, TokenEvent
from appliance.engine.stream import SequenceStream
from appliance.errors import ServiceError
from appliance.text.tokenizer import Tokenizer

MANY_WAITING = 16  # events: as many mean that the reader is slower than the model


class CompletionStream:
    """Iterate it once, and close it: that cancels what still runs, leaving the loop does not."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        num_prompt_tokens: int,
        parts: list[tuple[SequenceStream, ChoiceDecoder]],
    ) -> None:
        self._tokenizer = tokenizer
        self._num_prompt_tokens = num_prompt_tokens
        self._num_cached_tokens: int | None = None  # of the choice that was computed first
        self._parts = parts
        self.prompt_choices: tuple[TokenChoice | None, ...] | None = (
            None  # known once the first delta is out
        )

    @property
    def usage(self) -> Usage:
        """Tokens so far; final when the iteration has ended."""
        num_new = sum(decoder.num_tokens for _, decoder in self._parts)
        return Usage(
            prompt_tokens=self._num_prompt_tokens,
            completion_tokens=num_new,
            cached_tokens=self._num_cached_tokens or 0,
        )

    async def __aiter__(self) -> AsyncIterator[Delta]:
        """A delta a token; for a reader that is far behind, one for all that wait."""
        late: Delta | None = None
        async for sequence, decoder, event in merge(self._parts):
            if self._num_cached_tokens is None:
                self._num_cached_tokens = event.num_reused_tokens
            if event.prompt_logprobs is not None and self.prompt_choices is None:
                self.prompt_choices = tuple(
                    None if logprobs is None else token_choice(self._tokenizer, logprobs)
                    for logprobs in event.prompt_logprobs
                )
            if decoder.is_finished:
                continue  # a stop string ended it; the engine had not heard yet
            try:
                delta = decoder.push(event)
            except ServiceError:
                if late is not None:
                    yield late
                raise
            if decoder.is_finished and event.finish_reason is None:
                sequence.cancel(FinishReason.STOP)
            if delta is not None:
                late = delta if late is None else late + delta
            if late is not None and not self._is_far_behind(sequence, decoder):
                yield late
                late = None

    def _is_far_behind(self, sequence: SequenceStream, decoder: ChoiceDecoder) -> bool:
        """Whether the reader is, so that another event is there at once."""
        is_alone = len(self._parts) == 1
        return is_alone and not decoder.is_finished and sequence.num_waiting >= MANY_WAITING

    async def aclose(self) -> None:
        for sequence, decoder in self._parts:
            if not decoder.is_finished:
                sequence.cancel()

    async def collect(self) -> Completion:
        """All choices, finished."""
        choices = [Choice(index=decoder.index) for _, decoder in self._parts]
        texts: list[list[str]] = [[] for _ in choices]
        try:
            async for delta in self:
                choice = choices[delta.index]
                texts[delta.index].append(delta.text)
                choice.tokens.extend(delta.tokens)
                choice.tool_calls.extend(delta.tool_calls)
                choice.finish_reason = delta.finish_reason or choice.finish_reason
        finally:
            await self.aclose()
        for choice, pieces in zip(choices, texts, strict=True):
            choice.text = "".join(pieces)
        return Completion(choices=choices, usage=self.usage, prompt_choices=self.prompt_choices)


async def merge(
    parts: list[tuple[SequenceStream, ChoiceDecoder]],
) -> AsyncIterator[tuple[SequenceStream, ChoiceDecoder, TokenEvent]]:
    """Events of several sequences as they come."""
    if len(parts) == 1:
        sequence, decoder = parts[0]
        async for event in sequence:
            yield sequence, decoder, event
        return
    queue: asyncio.Queue[tuple[int, TokenEvent]] = asyncio.Queue()

    async def pump(number: int, sequence: SequenceStream) -> None:
        async for event in sequence:
            queue.put_nowait((number, event))

    pumps = [
        asyncio.create_task(pump(number, sequence)) for number, (sequence, _) in enumerate(parts)
    ]
    try:
        num_open = len(parts)
        while num_open:
            number, event = await queue.get()
            num_open -= event.finish_reason is not None
            yield *parts[number], event
    finally:
        for task in pumps:
            task.cancel()
