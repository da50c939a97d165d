"""The deltas of one request, all of its choices mixed, in the order the engine makes them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from appliance.completion.answer import Choice, Completion, Delta, TokenChoice, Usage
from appliance.completion.choice import ChoiceDecoder, token_choice
from appliance.completion.request import Reservation
from appliance.engine.sequence import FinishReason, TokenEvent
from appliance.engine.stream import SequenceStream
from appliance.errors import ApplianceError
from appliance.text.tokenizer import Tokenizer


class CompletionStream:
    """Follow it once, and close it: that cancels what still runs, being followed no more does not.

    A token goes from the engine's call into the loop to whoever follows without a task in between.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        prompt_ids: tuple[int, ...],
        parts: list[tuple[SequenceStream, ChoiceDecoder]],
        reservation: Reservation | None = None,
    ) -> None:
        self._tokenizer = tokenizer
        self.prompt_ids = prompt_ids
        self._num_cached_tokens: int | None = None  # of the choice that was computed first
        self._parts = parts
        self._reservation = reservation
        self._num_open = len(parts)
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._take: Callable[[Delta], None] | None = None
        self.prompt_choices: tuple[TokenChoice | None, ...] | None = (
            None  # known once the first delta is out
        )
        if reservation is not None:
            reservation.on_end(self.fail)

    @property
    def usage(self) -> Usage:
        """Tokens so far; final when all is done."""
        num_new = sum(decoder.num_tokens for _, decoder in self._parts)
        return Usage(
            prompt_tokens=len(self.prompt_ids),
            completion_tokens=num_new,
            cached_tokens=self._num_cached_tokens or 0,
        )

    def follow(self, take: Callable[[Delta], None]) -> asyncio.Future[None]:
        """Hand `take` a delta a token as it comes, on the event loop. The future is done after the
        last one, or fails: then none comes any more. Whoever cancels it gets none either.
        """
        self._take = take
        for sequence, decoder in self._parts:
            sequence.follow(partial(self._push, sequence, decoder))
        return self._done

    def close(self) -> None:
        self._done.cancel()
        if self._reservation is not None:
            self._reservation.settle(self.usage.total_tokens)
        self._take = None  # it holds the reader, and the reader holds us
        for sequence, _ in self._parts:
            sequence.cancel()

    def fail(self, error: ApplianceError) -> None:
        """End it from outside; its reader gets the error."""
        if not self._done.done():
            self._done.set_exception(error)

    async def collect(self) -> Completion:
        """All choices, finished."""
        choices = [Choice(index=decoder.index) for _, decoder in self._parts]
        texts: list[list[str]] = [[] for _ in choices]

        def add(delta: Delta) -> None:
            choice = choices[delta.index]
            texts[delta.index].append(delta.text)
            choice.tokens.extend(delta.tokens)
            choice.token_ids.extend(delta.token_ids)
            choice.tool_calls.extend(delta.tool_calls)
            choice.finish_reason = delta.finish_reason or choice.finish_reason

        try:
            await self.follow(add)
        finally:
            self.close()
        for choice, pieces in zip(choices, texts, strict=True):
            choice.text = "".join(pieces)
        return Completion(
            choices=choices,
            usage=self.usage,
            prompt_ids=self.prompt_ids,
            prompt_choices=self.prompt_choices,
        )

    def _push(self, sequence: SequenceStream, decoder: ChoiceDecoder, event: TokenEvent) -> None:
        """An edge: what goes wrong with one answer is for its reader, others get their events."""
        if decoder.is_finished or self._done.done():
            return  # a stop string ended it, or it failed; the engine had not heard yet
        try:
            self._read(sequence, decoder, event)
        except Exception as error:  # noqa: BLE001 - whoever awaits the end gets it
            self._done.set_exception(error)

    def _read(self, sequence: SequenceStream, decoder: ChoiceDecoder, event: TokenEvent) -> None:
        if self._num_cached_tokens is None:
            self._num_cached_tokens = event.num_reused_tokens
        if event.prompt_logprobs is not None and self.prompt_choices is None:
            self.prompt_choices = tuple(
                None if logprobs is None else token_choice(self._tokenizer, logprobs)
                for logprobs in event.prompt_logprobs
            )
        delta = decoder.push(event)
        if delta is not None and self._take is not None:
            self._take(delta)
        if decoder.is_finished:
            if event.finish_reason is None:
                sequence.cancel(FinishReason.STOP)
            self._num_open -= 1
            if not self._num_open:
                self._done.set_result(None)
