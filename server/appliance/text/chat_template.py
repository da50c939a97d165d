"""Renders messages to a prompt, with the chat template that came with the model."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING

from appliance.errors import InvalidRequest, ModelRefused
from appliance.text.confined import ConfinedProcess, Limits
from appliance.text.tokenizer import BOUNDARY

if TYPE_CHECKING:
    from pydantic import JsonValue

    from appliance.text.confined_worker import Reply

Message = Mapping[str, "JsonValue"]

ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})
_WORKER = "appliance.text.template_worker"
_LIMITS = Limits()
_MAX_SOURCE_CHARS = 2**20
_MAX_OUTPUT_CHARS = 8_000_000
_MAX_MESSAGE_CHARS = 200
_OPEN, _CLOSE = BOUNDARY, "\ufdd1"


def _local_time() -> datetime:
    return datetime.now().astimezone()


class ChatTemplate:
    """One model's chat template. `render` blocks for a millisecond or so: call it in a thread.

    `special_tokens` are the template's variables (`bos_token` and so on), `added_tokens` those of
    the tokenizer. `clock` is what `strftime_now` sees: give a fixed one to repeat an old prompt.
    A model without a template (None) refuses every chat.
    """

    def __init__(
        self,
        source: str | None,
        special_tokens: Mapping[str, str],
        *,
        added_tokens: Mapping[str, bool],
        clock: Callable[[], datetime] = _local_time,
        limits: Limits = _LIMITS,
    ) -> None:
        self._special_tokens = dict(special_tokens)
        self._clock = clock
        self._process: ConfinedProcess | None = None
        if source is None:
            return
        written = {
            text for text, is_special in added_tokens.items() if is_special or text in source
        }
        self._controls = _ControlTokens(written.union(special_tokens.values()))
        self._limits = limits
        if len(source) > _MAX_SOURCE_CHARS:
            raise ModelRefused(
                f"The chat template has {len(source)} characters; the limit is {_MAX_SOURCE_CHARS}."
            )
        config: dict[str, JsonValue] = {"source": source, "output_chars": _MAX_OUTPUT_CHARS}
        self._process = ConfinedProcess(_WORKER, config, limits)
        reply = self._process.start()
        if "error" in reply:
            raise ModelRefused(f"The chat template does not compile: {_cut(reply['message'])}")

    def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, JsonValue]] = (),
        *,
        add_generation_prompt: bool = True,
    ) -> str:
        """Render the prompt, to be encoded without adding special tokens.

        `tools` are OpenAI's: {"type": "function", "function": {...}}. Only the template writes
        control tokens: those in `messages` or `tools` come out with a BOUNDARY inside, which makes
        `Tokenizer.encode` read them as plain text.
        """
        if self._process is None:
            raise InvalidRequest(
                "This model has no chat template, so it cannot chat. Use /v1/completions.",
                field="messages",
                code="no_chat_template",
            )
        variables: dict[str, JsonValue] = {
            **self._special_tokens,
            "messages": [self._prepare(index, message) for index, message in enumerate(messages)],
            "tools": [self._controls.mark_object(tool) for tool in tools] or None,
            "documents": None,
            "add_generation_prompt": add_generation_prompt,
        }
        reply = self._process.ask({"variables": variables, "now": self._clock().isoformat()})
        if "error" in reply:
            raise self._error(reply)
        return self._controls.neutralize(reply["text"])

    def close(self) -> None:
        """End the template's process; the next render would start it again."""
        if self._process is not None:
            self._process.close()

    def _prepare(self, index: int, message: Message) -> JsonValue:
        role = message.get("role")
        if role not in ROLES:
            raise InvalidRequest(
                f"`messages[{index}].role` is unknown. Use {', '.join(sorted(ROLES))}.",
                field="messages",
            )
        marked = self._controls.mark_object(_with_parsed_arguments(message))
        return {**marked, "role": role}  # one of ours, which templates compare

    def _error(self, reply: Reply) -> InvalidRequest:
        match reply["error"], _cut(reply["message"]):
            case "refused", message:
                return InvalidRequest(
                    f"This model's chat template refuses these messages: {message}",
                    field="messages",
                )
            case "limit", "time":
                said = f"exceeded its time limit of {self._limits.cpu_time_s:g} s"
            case "limit", _:
                said = "exceeded its limit of memory, depth or output"
            case "forbidden", _:
                said = "did something that is not allowed"
            case _:
                said = "cannot render these messages"
        return InvalidRequest(
            f"This model's chat template {said}. Change the messages or use /v1/completions.",
            field="messages",
            code="chat_template_failed",
        )


def _cut(message: str) -> str:
    return message[:_MAX_MESSAGE_CHARS]


def _with_parsed_arguments(message: Message) -> dict[str, JsonValue]:
    """Parse tool call arguments: JSON text on the wire, objects in a template."""
    prepared = dict(message)
    calls = prepared.get("tool_calls")
    if isinstance(calls, list):
        prepared["tool_calls"] = [_with_parsed_call(call) for call in calls]
    return prepared


def _with_parsed_call(call: JsonValue) -> JsonValue:
    if not isinstance(call, dict) or not isinstance(function := call.get("function"), dict):
        return call
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        try:
            parsed = json.loads(arguments)
        except (ValueError, RecursionError):
            return call
        if isinstance(parsed, dict):
            return {**call, "function": {**function, "arguments": parsed}}
    return call


class _ControlTokens:
    """Keeps the control tokens a user writes from being read as control tokens.

    They are wrapped before the template runs, so that it still finds them in the text (a template
    may cut an answer at `</think>`), and get a boundary inside afterwards. A text that ends like
    the start of a control token is closed as well, so that the next text cannot complete it.
    """

    def __init__(self, texts: set[str]) -> None:
        controls = sorted(text for text in texts if len(text.strip()) > 1)
        either = _any_of(controls) if controls else "(?!)"
        self._pattern = re.compile(either)
        self._wrapped = re.compile(f"{_OPEN}({either}){_CLOSE}|[{_OPEN}{_CLOSE}]")
        self._starts = tuple({text[:end] for text in controls for end in range(1, len(text))})
        self._split = {text: self._with_boundaries(text) for text in controls}

    def mark(self, value: JsonValue) -> JsonValue:
        if isinstance(value, str):
            return self._mark_text(value)
        if isinstance(value, list):
            return [self.mark(item) for item in value]
        if isinstance(value, dict):
            return self.mark_object(value)
        return value

    def mark_object(self, value: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
        return {self._mark_text(key): self.mark(item) for key, item in value.items()}

    def _mark_text(self, text: str) -> str:
        text = text.replace(_OPEN, "").replace(_CLOSE, "")
        text = self._pattern.sub(rf"{_OPEN}\g<0>{_CLOSE}", text)
        return text + _CLOSE if text.endswith(self._starts) else text

    def neutralize(self, text: str) -> str:
        return self._wrapped.sub(lambda match: self._split.get(match[1], BOUNDARY), text)

    def _with_boundaries(self, token: str) -> str:
        text = token[0] + BOUNDARY + token[1:]
        while match := self._pattern.search(text):
            cut = match.start() + 1
            text = text[:cut] + BOUNDARY + text[cut:]
        return text + BOUNDARY


def _any_of(texts: Sequence[str]) -> str:
    """Make a regular expression for the longest of sorted `texts`, tried once by prefix."""
    groups = groupby(filter(None, texts), key=itemgetter(0))
    branches = [re.escape(first) + _any_of([text[1:] for text in group]) for first, group in groups]
    if not branches:
        return ""
    either = branches[0] if len(branches) == 1 else f"(?:{'|'.join(branches)})"
    return either if all(texts) else f"(?:{either})?"
