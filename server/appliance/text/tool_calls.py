"""Finds tool calls in streamed text, in each of the ways that models write them."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, NoReturn, Protocol

if TYPE_CHECKING:
    from appliance.text.tokenizer import Tokenizer


class ToolFormat(StrEnum):
    """How a model writes a call, known from the template it was trained with."""

    HERMES = "hermes"  # <tool_call>{"name": …, "arguments": …}</tool_call>, also Qwen's and our own
    LLAMA3 = "llama3"  # the whole answer is {"name": …, "parameters": …}
    MISTRAL = "mistral"  # [TOOL_CALLS][{"name": …, "arguments": …}]


@dataclass(frozen=True, slots=True)
class FoundCall:
    """One call as the model wrote it; `arguments` is the JSON text of an object."""

    name: str
    arguments: str


HERMES_OPEN, HERMES_CLOSE = "<tool_call>", "</tool_call>"
LLAMA3_MARK = "<|python_tag|>"
MISTRAL_MARK = "[TOOL_CALLS]"
_MARKS = (HERMES_OPEN, HERMES_CLOSE, LLAMA3_MARK, MISTRAL_MARK)


def detect_tool_format(template: str | None) -> ToolFormat | None:
    """Detect the format that a chat template teaches; None for one without a parser."""
    if template is None or "tools" not in template:
        return None
    if HERMES_OPEN in template:
        return None if "<function=" in template else ToolFormat.HERMES
    if MISTRAL_MARK in template:
        return None if "[ARGS]" in template else ToolFormat.MISTRAL
    is_llama3 = "<|start_header_id|>" in template and '"parameters"' in template
    return ToolFormat.LLAMA3 if is_llama3 else None


def visible_ids(tokenizer: Tokenizer) -> frozenset[int]:
    """Return the tokens that mark calls, which a detokenizer must keep for calls to be found."""
    ids = {tokenizer.token_id(mark) for mark in _MARKS}
    return frozenset(token_id for token_id in ids if token_id is not None)


@dataclass(frozen=True, slots=True)
class Found:
    """What became certain: text to show, and calls that are complete."""

    text: str = ""
    calls: tuple[FoundCall, ...] = ()


class ToolCallParser:
    """Splits one answer into visible text and calls, as it streams in.

    What looks like a call but is not one (broken JSON, a call without a name) comes back as text.
    Whether a tool of that name exists is the caller's to check.
    """

    def __init__(self, tool_format: ToolFormat) -> None:
        self._scanner: _Scanner = _SCANNERS[tool_format]()

    def push(self, text: str) -> Found:
        return self._scanner.push(text)

    def flush(self) -> Found:
        """Return what remains at the end of the answer."""
        return self._scanner.flush()


class _Scanner(Protocol):
    def push(self, text: str) -> Found: ...

    def flush(self) -> Found: ...


class _HermesScanner:
    """Text, then any number of marked calls; white space next to a call is not text."""

    def __init__(self) -> None:
        self._pending = ""
        self._is_inside = False  # pending starts right after an opening mark
        self._gap = ""  # the white space before that mark
        self._searched = 0  # where in pending the search for a closing mark goes on
        self._follows_call = False

    def push(self, text: str) -> Found:
        self._pending += text
        shown: list[str] = []
        calls: list[FoundCall] = []
        while (self._scan_call if self._is_inside else self._scan_text)(shown, calls):
            pass
        return Found("".join(shown), tuple(calls))

    def flush(self) -> Found:
        pending, self._pending = self._pending, ""
        if not self._is_inside:
            return Found("" if self._follows_call and pending.isspace() else pending)
        call = _parse_call(pending, "arguments")  # the model may leave the closing mark out
        return Found(calls=(call,)) if call else Found(self._gap + HERMES_OPEN + pending)

    def _scan_text(self, shown: list[str], calls: list[FoundCall]) -> bool:
        before, mark, after = self._pending.partition(HERMES_OPEN)
        num_held = 0 if mark else _num_held(before, HERMES_OPEN)
        text = before[: len(before) - num_held].rstrip()
        if text:
            shown.append(text.lstrip() if self._follows_call else text)
            self._follows_call = False
        if not mark:
            self._pending = before[len(text) :]
            return False
        self._gap = before[len(text) :]
        self._pending, self._is_inside, self._searched = after, True, 0
        return True

    def _scan_call(self, shown: list[str], calls: list[FoundCall]) -> bool:
        end = self._pending.find(HERMES_CLOSE, self._searched)
        if end < 0:
            self._searched = max(0, len(self._pending) - len(HERMES_CLOSE) + 1)
            return False
        body = self._pending[:end]
        call = _parse_call(body, "arguments")
        if call is None and _ends_in_string(body):  # the mark is a part of an argument
            self._searched = end + 1
            return True
        if call is None:
            shown.append(self._gap + HERMES_OPEN + body + HERMES_CLOSE)
        else:
            calls.append(call)
        self._pending = self._pending[end + len(HERMES_CLOSE) :]
        self._is_inside, self._follows_call = False, call is not None
        return True


class _Llama3Scanner:
    """Holds the whole answer back once it starts as a call does; any other answer is text."""

    _STARTS = tuple(
        mark + "{" + key for mark in ("", LLAMA3_MARK) for key in ('"name":"', '"type":"function"')
    )

    def __init__(self) -> None:
        self._pending = ""
        self._is_text = False
        self._is_call = False

    def push(self, text: str) -> Found:
        if self._is_text:
            return Found(text)
        self._pending += text
        if not self._is_call:
            start = "".join(self._pending.split())
            self._is_call = start.startswith(self._STARTS)
            self._is_text = not self._is_call and not any(s.startswith(start) for s in self._STARTS)
        return self._release() if self._is_text else Found()

    def flush(self) -> Found:
        calls = tuple(map(_llama3_call, _values(self._pending.strip().removeprefix(LLAMA3_MARK))))
        certain = tuple(call for call in calls if call is not None)
        return Found(calls=certain) if calls and len(certain) == len(calls) else self._release()

    def _release(self) -> Found:
        pending, self._pending = self._pending, ""
        return Found(pending)


class _MistralScanner:
    """Text up to the mark; then a list of calls to the end."""

    def __init__(self) -> None:
        self._pending = ""

    def push(self, text: str) -> Found:
        self._pending += text
        before, mark, _ = self._pending.partition(MISTRAL_MARK)
        shown = before if mark else before[: len(before) - _num_held(before, MISTRAL_MARK)]
        self._pending = self._pending[len(shown) :]
        return Found(shown)

    def flush(self) -> Found:
        pending, self._pending = self._pending, ""
        value = _parse(pending.removeprefix(MISTRAL_MARK))
        if pending.startswith(MISTRAL_MARK) and isinstance(value, list):
            calls = [_call_of(item, "arguments") for item in value]
            certain = tuple(call for call in calls if call is not None)
            if certain and len(certain) == len(calls):
                return Found(calls=certain)
        return Found(pending)


_SCANNERS: dict[ToolFormat, type[_HermesScanner | _Llama3Scanner | _MistralScanner]] = {
    ToolFormat.HERMES: _HermesScanner,
    ToolFormat.LLAMA3: _Llama3Scanner,
    ToolFormat.MISTRAL: _MistralScanner,
}


def _num_held(text: str, mark: str) -> int:
    """Count the characters at the end of `text` that may be the start of `mark`."""
    longest = min(len(text), len(mark) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(mark[:n])), 0)


def _ends_in_string(json_text: str) -> bool:
    return re.sub(r"\\.", "", json_text, flags=re.DOTALL).count('"') % 2 == 1


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _finite(number: str) -> float:
    value = float(number)
    return value if math.isfinite(value) else _refuse(number)


_DECODER = json.JSONDecoder(parse_constant=_refuse, parse_float=_finite)


def _parse(text: str) -> object:
    """Parse a value; None for what is not JSON."""
    try:
        value: object = _DECODER.decode(text)
    except (ValueError, RecursionError):
        return None
    return value


def _values(text: str) -> list[object]:
    """Yield values with semicolons between them; None at the end for what is not JSON."""
    values: list[object] = []
    while text:
        try:
            value, end = _DECODER.raw_decode(text)
        except (ValueError, RecursionError):
            return [*values, None]
        values.append(value)
        text = text[end:].lstrip("; \n")
    return values


def _parse_call(text: str, arguments_key: str) -> FoundCall | None:
    return _call_of(_parse(text), arguments_key)


def _llama3_call(value: object) -> FoundCall | None:
    """Parse a call; other answers in JSON may have a name, but more besides."""
    if isinstance(value, dict) and value.keys() - {"type"} == {"name", "parameters"}:
        return _call_of(value, "parameters")
    return None


def _call_of(value: object, arguments_key: str) -> FoundCall | None:
    if not isinstance(value, dict) or not isinstance(name := value.get("name"), str):
        return None
    arguments = value.get(arguments_key, {})
    if isinstance(arguments, str):  # some models write JSON in JSON
        arguments = _parse(arguments)
    if not isinstance(arguments, dict):
        return None
    text = json.dumps(arguments, ensure_ascii=False)
    # An escaped half of a surrogate pair is JSON, but no UTF-8.
    is_utf8 = not re.search("[\ud800-\udfff]", name + text)
    return FoundCall(name, text) if is_utf8 else FoundCall(name, json.dumps(arguments))
