"""Reads a request's JSON body: within its size limit, strictly, and of values we can work with."""

from __future__ import annotations

import asyncio
import json
import math
import re
from typing import NoReturn

from pydantic import JsonValue

from appliance.api.http.request import Request
from appliance.errors import InvalidRequest, PayloadTooLarge, UnsupportedMediaType

MAX_DEPTH = 64
MAX_OBJECT_KEYS = 4096
MAX_CONTAINERS = 50_000  # a million of them take half a second, in which nothing else runs
MIN_INTEGER, MAX_INTEGER = -(2**63), 2**63 - 1
BODY_TIMEOUT_S = 60.0
LONG_BODY_BYTES = 64 * 1024  # longer ones are parsed in a thread, so that other answers flow on

# One or more strings, whole or cut off, and what is between them: it matches at every quote.
STRINGS = re.compile(r'(?:"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)[^"\[{]*+)++', re.DOTALL)


async def read_json(request: Request, max_bytes: int, *, allows_empty: bool = False) -> JsonValue:
    """The value of a JSON body; a RequestError says why there is none."""
    is_empty = allows_empty and _is_empty(request)
    if not is_empty:
        _check_kind(request)
        check_length(request, max_bytes)
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            body = await _read_bytes(request, max_bytes)
    except TimeoutError:
        raise InvalidRequest(
            f"The body did not arrive within {BODY_TIMEOUT_S:.0f} seconds.", code="body_timeout"
        ) from None
    if is_empty and not body:
        return {}
    if len(body) > LONG_BODY_BYTES:
        return await asyncio.to_thread(parse_json, body)
    return parse_json(body)


def _is_empty(request: Request) -> bool:
    is_chunked = request.headers.get("transfer-encoding")
    return not is_chunked and request.headers.get("content-length", "0") == "0"


def _check_kind(request: Request) -> None:
    kind, _, parameters = request.headers.get("content-type").lower().partition(";")
    charset = parameters.replace(" ", "").replace('"', "").removeprefix("charset=")
    if kind.strip() != "application/json" or charset not in ("", "utf-8", "utf8"):
        raise UnsupportedMediaType(
            "The body must be JSON in UTF-8, sent with the header Content-Type: application/json."
        )
    check_encoding(request)


def check_encoding(request: Request) -> None:
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise UnsupportedMediaType("Compressed bodies are not supported; send it as it is.")


def check_length(request: Request, max_bytes: int) -> None:
    """Refuse a body that says it is too long before it is read."""
    declared = request.headers.get("content-length")
    if declared.isdigit() and (len(declared) > len(str(max_bytes)) or int(declared) > max_bytes):
        refuse_size(max_bytes)


async def _read_bytes(request: Request, max_bytes: int) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        if len(body) + len(chunk) > max_bytes:
            refuse_size(max_bytes)
        body += chunk
    return bytes(body)


def refuse_size(max_bytes: int) -> NoReturn:
    raise PayloadTooLarge(f"The body is larger than this server's limit of {max_bytes} bytes.")


def parse_json(body: bytes) -> JsonValue:
    """JSON as RFC 8259 has it, with neither duplicate keys nor values that have no meaning here."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        _refuse_json("it is not UTF-8 text")
    if not text.strip():
        _refuse_json("it is empty")
    if _has_too_many_containers(text):
        _refuse_json(f"it has more than {MAX_CONTAINERS} lists and objects")
    try:
        value: JsonValue = json.loads(
            text, object_pairs_hook=_build_object, parse_constant=_refuse_constant
        )
    except json.JSONDecodeError as error:
        _refuse_json(f"{error.msg}, line {error.lineno} column {error.colno}")
    except RecursionError:
        _refuse_depth()
    except ValueError:  # more digits than Python converts
        _refuse_integer()
    _check_values(value, has_escapes="\\u" in text)
    return value


def _has_too_many_containers(text: str) -> bool:
    if _num_brackets(text) <= MAX_CONTAINERS:
        return False
    # There is a bracket between any two matches: after so many of them the answer is known.
    bare = STRINGS.sub("", text, count=MAX_CONTAINERS + 2)
    return _num_brackets(bare) > MAX_CONTAINERS


def _num_brackets(text: str) -> int:
    return text.count("[") + text.count("{")


def _build_object(pairs: list[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
    built = dict(pairs)
    if len(built) != len(pairs):
        _refuse_json("an object has the same key twice")
    if len(built) > MAX_OBJECT_KEYS:
        _refuse_json(f"an object has more than {MAX_OBJECT_KEYS} keys")
    return built


def _refuse_constant(name: str) -> NoReturn:
    _refuse_json(f"{name} is not a JSON number")


def _check_values(value: JsonValue, *, has_escapes: bool) -> None:
    """Level by level, so that depth costs no recursion. Only an escape can write a surrogate."""
    level: list[JsonValue] = [value]
    for _ in range(MAX_DEPTH + 1):
        deeper: list[JsonValue] = []
        for item in level:
            if isinstance(item, str):
                if has_escapes:
                    _check_text(item)
            elif isinstance(item, dict):
                deeper.extend(item)
                deeper.extend(item.values())
            elif isinstance(item, list):
                deeper.extend(item)
            elif item is not None:
                _check_number(item)
        if not deeper:
            return
        level = deeper
    _refuse_depth()


def _check_text(text: str) -> None:
    if "\x00" in text:
        _refuse_json("a string holds the character NUL")
    try:
        text.encode()
    except UnicodeEncodeError:
        _refuse_json("a string holds half of a surrogate pair")


def _check_number(number: float) -> None:
    if isinstance(number, float):
        if not math.isfinite(number):
            _refuse_json("a number is too large")
    elif not MIN_INTEGER <= number <= MAX_INTEGER:
        _refuse_integer()


def _refuse_integer() -> NoReturn:
    _refuse_json("a whole number does not fit in 64 bits")


def _refuse_depth() -> NoReturn:
    _refuse_json(f"it is nested deeper than {MAX_DEPTH} levels")


def _refuse_json(problem: str) -> NoReturn:
    raise InvalidRequest(
        f"The body is not JSON this server accepts: {problem}.", code="invalid_json"
    )
