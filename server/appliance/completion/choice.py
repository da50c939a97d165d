"""One choice in the making: token events in, deltas out."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable

from appliance.completion.answer import Delta, FinishWord, TokenChoice, ToolCall
from appliance.engine.sequence import FinishReason, TokenEvent, TokenLogprobs
from appliance.errors import EngineFailure, NotReady, QueueTimeout
from appliance.metrics import Metrics
from appliance.text.detokenizer import Detokenizer
from appliance.text.grammar import GrammarConstraint
from appliance.text.tokenizer import Tokenizer
from appliance.text.tool_calls import ToolCallParser


class TokenTimes:
    """Reports when the tokens of one sequence came."""

    def __init__(self, metrics: Metrics, clock: Callable[[], float] = time.monotonic) -> None:
        self._metrics = metrics
        self._clock = clock
        self._last_at_s = clock()
        self._has_token = False

    def token(self) -> None:
        now_s = self._clock()
        interval_s, self._last_at_s = now_s - self._last_at_s, now_s
        if self._has_token:
            self._metrics.observe_next_token(interval_s)
        else:
            self._has_token = True
            self._metrics.observe_first_token(interval_s)

    def end(self, reason: FinishReason) -> None:
        self._metrics.count_finished_sequence(reason.value)
        if reason is FinishReason.FAILED:
            self._metrics.count_engine_failure()


class ChoiceDecoder:
    """Turns the events of one sequence into deltas; knows about stop strings and tool calls."""

    def __init__(  # noqa: PLR0913  # called once, by the service
        self,
        index: int,
        tokenizer: Tokenizer,
        detokenizer: Detokenizer,
        tool_parser: ToolCallParser | None,
        tool_names: frozenset[str],
        hidden_token_ids: frozenset[int],
        constraint: GrammarConstraint | None,
        times: TokenTimes,
    ) -> None:
        self.index = index
        self.num_tokens = 0
        self.is_finished = False
        self._tokenizer = tokenizer
        self._detokenizer = detokenizer
        self._tool_parser = tool_parser
        self._tool_names = tool_names
        self._hidden_token_ids = hidden_token_ids  # stop tokens: they end the text
        self._constraint = constraint
        self._times = times
        self._has_tool_calls = False

    def push(self, event: TokenEvent) -> Delta | None:
        """The delta this event makes, or None while its text is held back."""
        text = ""
        tokens: tuple[TokenChoice, ...] = ()
        if event.token_id is not None:
            self._times.token()
            self.num_tokens += 1
            if event.token_id not in self._hidden_token_ids:
                text = self._detokenizer.push(event.token_id)
                if event.logprobs is not None:
                    tokens = (token_choice(self._tokenizer, event.logprobs),)
        reason = event.finish_reason
        if self._detokenizer.stopped is not None:
            reason = FinishReason.STOP
        if reason is not None:
            self._end(reason)
        finish = self._finish_word(reason)
        if finish is not None:
            text += self._detokenizer.flush()
        text, calls = self._split_tool_calls(text)
        if finish is None and not text and not tokens and not calls:
            return None
        if finish == "stop" and self._has_tool_calls:
            finish = "tool_calls"
        return Delta(
            index=self.index, text=text, tokens=tokens, tool_calls=calls, finish_reason=finish
        )

    def abandon(self) -> None:
        """Nobody wants the rest."""
        self._end(FinishReason.CANCELLED)

    def _end(self, reason: FinishReason) -> None:
        self.is_finished = True
        self._times.end(reason)

    def _finish_word(self, reason: FinishReason | None) -> FinishWord | None:
        match reason:
            case None:
                return None
            case FinishReason.STOP:
                is_cut = self._constraint is not None and self._constraint.has_failed
                return "length" if is_cut else "stop"  # a grammar that passed a limit is not whole
            case FinishReason.LENGTH:
                return "length"
            case FinishReason.TIMED_OUT:
                raise QueueTimeout("The request waited too long for its turn. Try again later.")
            case FinishReason.CANCELLED:
                raise NotReady("The server shut down before the answer was finished. Try again.")
            case FinishReason.FAILED:
                raise EngineFailure(
                    "The answer could not be computed. The server's log has the cause."
                )

    def _split_tool_calls(self, text: str) -> tuple[str, tuple[ToolCall, ...]]:
        if self._tool_parser is None:
            return text, ()
        found = [self._tool_parser.push(text)]
        if self.is_finished:
            found.append(self._tool_parser.flush())
        shown, calls = "", []
        for part in found:
            shown += part.text
            for call in part.calls:
                if call.name in self._tool_names:
                    call_id = f"call_{secrets.token_hex(12)}"
                    calls.append(
                        ToolCall(call_id=call_id, name=call.name, arguments=call.arguments)
                    )
                else:  # a tool that nobody offered is something the model said
                    shown += json.dumps({"name": call.name, "arguments": call.arguments})
        self._has_tool_calls = self._has_tool_calls or bool(calls)
        return shown, tuple(calls)


def token_choice(tokenizer: Tokenizer, logprobs: TokenLogprobs) -> TokenChoice:
    """A token and its alternatives as text."""
    return TokenChoice(
        token_id=logprobs.token_id,
        text=tokenizer.token_text(logprobs.token_id),
        bytes=tokenizer.token_bytes(logprobs.token_id),
        logprob=logprobs.logprob,
        top=tuple(
            TokenChoice(
                token_id=token_id,
                text=tokenizer.token_text(token_id),
                bytes=tokenizer.token_bytes(token_id),
                logprob=logprob,
            )
            for token_id, logprob in logprobs.top
        ),
    )
