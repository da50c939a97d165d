"""Describes every failure to clients, by default as the error object of OpenAI's API."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, Field

from appliance.errors import (
    InvalidRequest,
    PayloadTooLarge,
    QuotaExceeded,
    RateLimited,
    RequestError,
    ServiceError,
    Unauthorized,
)

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

# A browser asks its user for Basic: any name, the key as password. Then our pages work. Chromium
# reads one challenge a header, so the Edge adds the second.
REALM = "llama-appliance"
CHALLENGE = f'Bearer realm="{REALM}"'
BASIC_CHALLENGE = f'Basic realm="{REALM}", charset="UTF-8"'.encode()
CLIENT_CLOSED_REQUEST = 499  # nginx's number for an answer that nobody was there to read

MAX_PROBLEMS = 10
MAX_MESSAGE_LENGTH = 1200  # JSON writes a character in at most 6 bytes: under 8 KiB

# Custom pydantic error types whose messages are our own sentences.
UNSUPPORTED = "unsupported_parameter"
REFUSED = "refused_value"

QUOTED = re.compile(r"`([a-z_]+)(?=[`.\[])")  # how messages name a field of the domain


class ErrorObject(BaseModel):
    """What went wrong, as in OpenAI's API."""

    model_config = ConfigDict(defer_build=True)

    message: Annotated[str, Field(description="What is wrong and what to do, in a sentence.")]
    type: Annotated[str, Field(description="invalid_request_error or server_error.")]
    param: Annotated[str | None, Field(description="The parameter at fault.")]
    code: Annotated[str, Field(description="A stable name of the problem.")]


class ErrorResponse(BaseModel):
    """The body of every answer that is not a success, on every path."""

    model_config = ConfigDict(defer_build=True)

    error: ErrorObject


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A failure in a client's words, for a face to write down."""

    status: int
    message: str
    type: str
    param: str | None
    code: str
    headers: Mapping[str, str]


def describe_error(error: Exception, words: Mapping[str, str]) -> Problem:
    """Describe an error raised on purpose; of any other, a client learns only that it happened.

    `words` maps a field of the domain to the client's word for it.
    """
    if not isinstance(error, RequestError | ServiceError):
        return Problem(
            status=500,
            message="The server failed to answer. Its log has the cause, under this answer's"
            " X-Request-Id.",
            type="server_error",
            param=None,
            code="internal_error",
            headers={},
        )
    message, param = error.message, error.param
    if isinstance(error, RequestError) and error.field is not None:
        message = QUOTED.sub(lambda quoted: _translate(quoted, words), message)
        param = words.get(error.field, error.field)
    if len(message) > MAX_MESSAGE_LENGTH:
        message = message[: MAX_MESSAGE_LENGTH - 1] + "…"
    return Problem(
        status=error.status,
        message=message,
        type=error.type,
        param=param,
        code=error.code,
        headers=_headers(error),
    )


def _translate(quoted: re.Match[str], words: Mapping[str, str]) -> str:
    return f"`{words.get(quoted[1], quoted[1])}"


def _headers(error: RequestError | ServiceError) -> dict[str, str]:
    if isinstance(error, ServiceError) and error.retry_after_s is not None:
        return {"Retry-After": str(error.retry_after_s)}
    if isinstance(error, RateLimited):
        return {"Retry-After": str(error.retry_after_s)}
    if isinstance(error, QuotaExceeded):  # OpenAI's clients try again only where that may help
        return {"Retry-After": str(error.retry_after_s), "X-Should-Retry": "false"}
    if isinstance(error, Unauthorized):
        return {"WWW-Authenticate": CHALLENGE}
    if isinstance(error, PayloadTooLarge):
        return {"Connection": "close"}  # the rest of the body is not read
    return {}


def openai_body(problem: Problem) -> bytes:
    return error_bytes(problem.message, type=problem.type, param=problem.param, code=problem.code)


def error_bytes(message: str, *, type: str, param: str | None, code: str) -> bytes:
    error = {"message": message, "type": type, "param": param, "code": code}
    return json.dumps({"error": error}, ensure_ascii=False).encode(errors="replace")


def describe_problems(problems: Sequence[ErrorDetails]) -> InvalidRequest:
    """One error for all that validation found; the first problem gives code and parameter."""
    first = problems[0]
    sentences = [_sentence(problem) for problem in problems[:MAX_PROBLEMS]]
    if len(problems) > MAX_PROBLEMS:
        sentences.append(f"{len(problems) - MAX_PROBLEMS} further problems are not listed.")
    code = CODES.get(first["type"], "invalid_value")
    return InvalidRequest(" ".join(sentences), param=_param(first["loc"]) or None, code=code)


CODES = {
    "missing": "missing_required_parameter",
    "extra_forbidden": UNSUPPORTED,
    UNSUPPORTED: UNSUPPORTED,
} | dict.fromkeys(
    ("string_type", "int_type", "int_from_float", "float_type", "bool_type", "list_type",
     "dict_type", "model_type", "model_attributes_type", "int_parsing", "float_parsing",
     "bool_parsing"),
    "invalid_type",
)  # fmt: skip

PREDICATES: Mapping[str, str] = {
    "missing": "is required",
    "extra_forbidden": "is not a parameter of this request",
    "string_type": "must be a string",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "int_parsing": "must be a whole number",
    "float_parsing": "must be a number",
    "bool_parsing": "must be true or false",
    "list_type": "must be a list",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "too_short": "must have at least {min_length} entries",
    "too_long": "must have at most {max_length} entries",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    "string_pattern_mismatch": "has characters that are not allowed",
    "literal_error": "must be {expected}",
}

JSON_KINDS = {str: "a string", list: "a list", dict: "an object", type(None): "null"}


def _sentence(problem: ErrorDetails) -> str:
    """`temperature` is 3; it must be at most 2. Of the input, only numbers and kinds are shown."""
    subject = _param(problem["loc"])
    name = f"`{subject}`" if subject else "The body"
    if problem["type"] in (UNSUPPORTED, REFUSED):
        return f"{name} {problem['msg']}."
    details = {
        key: format(value, "g") if isinstance(value, float) else value
        for key, value in problem.get("ctx", {}).items()
    }
    predicate = PREDICATES.get(problem["type"], "is not valid").format_map(details)
    if details.get("min_length") == 1:
        predicate = "must not be empty"
    if problem["type"] == "literal_error" or not predicate.startswith("must be"):
        return f"{name} {predicate}."
    return f"{name} is {_describe(problem['input'])}; it {predicate}."


def _describe(value: object) -> str:
    """A number as it is, of all else only the kind."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    return JSON_KINDS.get(type(value), "something else")


SAFE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}|[0-9]{1,19}")


def _param(location: Sequence[int | str]) -> str:
    """("messages", 0, "@text") as messages[0]; a name that is no identifier is hidden."""
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        elif not part.startswith(("@", "[")):  # tags of our unions; pydantic's mark of a key
            name = part if SAFE_NAME.fullmatch(part) else "*"
            path += f".{name}" if path else name
    return path[:200]
