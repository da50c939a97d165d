"""One choice in the making: token events in, deltas out."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass, field

from appliance.completion.answer import Delta, FinishWord, TokenChoice, ToolCall
from appliance.engine.sequence import FinishReason, TokenEvent, TokenLogprobs
from appliance.errors import EngineFailure, NotReady, Overloaded, QueueTimeout, ServiceError
from appliance.text.detokenizer import Detokenizer
from appliance.text.grammar import GrammarConstraint
from appliance.text.tokenizer import Tokenizer
from appliance.text.tool_calls import ToolCallParser


class ChoiceDecoder:
    """Turns the events of one sequence into deltas; knows about stop strings and tool calls."""

    def __init__(
        self,
        index: int,
        tokenizer: Tokenizer,
        detokenizer: Detokenizer,
        hidden_token_ids: frozenset[int],
        *,
        constraint: GrammarConstraint | None = None,
        tools: ToolReader | None = None,
    ) -> None:
        self.index = index
        self.num_tokens = 0
        self.is_finished = False
        self._tokenizer = tokenizer
        self._detokenizer = detokenizer
        self._hidden_token_ids = hidden_token_ids  # stop tokens: they end the text
        self._constraint = constraint
        self._tools = tools
        self._held: HeldTokens | None = None  # from the first log-probabilities on
        self._unsent_ids: list[int] = []  # kept by IdDecoder alone

    def push(self, event: TokenEvent) -> Delta | None:
        """The delta this event makes, or None while its text is held back."""
        text = "" if event.token_id is None else self._push_token(event.token_id, event.logprobs)
        finish = self._finish_word(event.finish_reason)
        if finish is not None:
            self.is_finished = True
            text += self._detokenizer.flush()
        tokens = () if self._held is None else self._release(self._held, len(text))
        calls: tuple[ToolCall, ...] = ()
        if self._tools is not None:
            text, calls = self._tools.read(text, is_last=self.is_finished)
            if finish == "stop" and self._tools.num_calls:
                finish = "tool_calls"
        if finish is None and not text and not tokens and not calls:
            return None
        return Delta(
            index=self.index, text=text, tokens=tokens, tool_calls=calls, finish_reason=finish
        )

    def _push_token(self, token_id: int, logprobs: TokenLogprobs | None) -> str:
        self.num_tokens += 1
        if token_id in self._hidden_token_ids:
            return ""
        text = self._detokenizer.push(token_id)
        if logprobs is not None:
            if self._held is None:
                self._held = HeldTokens()
            choice = token_choice(self._tokenizer, logprobs)
            # The token that completes a stop string stays held, whatever of it is text.
            has_stopped = self._detokenizer.stopped is not None
            self._held.add(choice, len(text) + self._detokenizer.num_held + has_stopped)
        return text

    def _release(self, held: HeldTokens, num_chars: int) -> tuple[TokenChoice, ...]:
        tokens = held.release(num_chars)
        if self.is_finished:
            tokens += held.close(is_cut=self._detokenizer.stopped is not None)
        return tokens

    def _finish_word(self, reason: FinishReason | None) -> FinishWord | None:
        if self._detokenizer.stopped is not None:
            return "stop"
        match reason:
            case None:
                return None
            case FinishReason.STOP:
                is_cut = self._constraint is not None and self._constraint.has_failed
                return "length" if is_cut else "stop"  # a grammar that passed a limit is not whole
            case FinishReason.LENGTH:
                return "length"
            case _:
                self.is_finished = True
                raise unfinished(reason)


class IdDecoder(ChoiceDecoder):
    """Adds to each delta the ids sampled since the one before: every id of the choice, in order.

    The stop token is one of them, and so is the token that completes a stop string. A class of its
    own, so that a token costs nothing more where no client asks for ids.
    """

    def push(self, event: TokenEvent) -> Delta | None:
        if event.token_id is not None:
            self._unsent_ids.append(event.token_id)
        delta = super().push(event)
        if delta is not None:
            delta.token_ids = tuple(self._unsent_ids)
            self._unsent_ids.clear()
        return delta


def unfinished(reason: FinishReason | None) -> ServiceError:
    """What to tell the client of a sequence that ended without its answer."""
    match reason:
        case FinishReason.TIMED_OUT:
            return QueueTimeout("The request waited too long for its turn. Try again later.")
        case FinishReason.DISPLACED:
            return Overloaded(
                "The server is busy, and the request gave its place in the queue to a client with "
                "fewer. Try again soon."
            )
        case FinishReason.CANCELLED:
            return NotReady("The server shut down before the answer was finished. Try again.")
        case _:
            return EngineFailure(
                "The answer could not be computed. The server's log has the cause."
            )


@dataclass(slots=True)
class HeldTokens:
    """Log-probabilities, sent with the text of their tokens: a stop string takes both along."""

    _num_sent: int = 0  # characters
    _num_known: int = 0
    _tokens: list[tuple[int, int, TokenChoice]] = field(default_factory=list)  # start, end

    def add(self, token: TokenChoice, num_unsent: int) -> None:
        """A token after which `num_unsent` characters are known and not sent yet."""
        start, self._num_known = self._num_known, self._num_sent + num_unsent
        self._tokens.append((start, self._num_known, token))

    def release(self, num_chars: int) -> tuple[TokenChoice, ...]:
        """The tokens whose text is out once `num_chars` more are sent."""
        self._num_sent += num_chars
        num_out = sum(end <= self._num_sent for _, end, _ in self._tokens)
        out, self._tokens = self._tokens[:num_out], self._tokens[num_out:]
        return tuple(token for _, _, token in out)

    def close(self, *, is_cut: bool) -> tuple[TokenChoice, ...]:
        """What remains at the end: after a stop string, only a token that has text before it."""
        return tuple(
            token for start, _, token in self._tokens if not is_cut or start < self._num_sent
        )


class ToolReader:
    """Finds the calls of offered tools in the text of one choice."""

    def __init__(self, parser: ToolCallParser, names: frozenset[str], *, is_forced: bool) -> None:
        self.num_calls = 0
        self._parser = parser
        self._names = names
        self._is_forced = is_forced  # the answer is a call and nothing else, even one cut short

    def read(self, text: str, *, is_last: bool) -> tuple[str, tuple[ToolCall, ...]]:
        """The text to show and the calls that are complete."""
        found = [self._parser.push(text)]
        if is_last:
            found.append(self._parser.flush())
        shown = ""
        calls: list[ToolCall] = []
        for part in found:
            shown += part.text
            for call in part.calls:
                if call.name in self._names:
                    calls.append(make_call(call.name, call.arguments))
                else:  # a tool that nobody offered is something the model said
                    shown += json.dumps({"name": call.name, "arguments": call.arguments})
        self.num_calls += len(calls)
        return "" if self._is_forced else shown, tuple(calls)


def make_call(name: str, arguments: str) -> ToolCall:
    return ToolCall(call_id=f"call_{secrets.token_hex(12)}", name=name, arguments=arguments)


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
