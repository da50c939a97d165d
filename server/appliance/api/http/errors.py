"""Turns whatever goes wrong into the one error object that clients know from OpenAI's API."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, cast

from fastapi import FastAPI, Request
from pydantic import BaseModel, Field
from pydantic_core import ErrorDetails
from starlette.exceptions import HTTPException
from starlette.responses import Response

from appliance.api.http.state import ApplianceState
from appliance.errors import (
    ApplianceError,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    PayloadTooLarge,
    RequestError,
    ServiceError,
)
from appliance.metrics import Metrics

CLIENT_CLOSED_REQUEST = 499  # nginx's number for an answer that nobody was there to read

MAX_PROBLEMS = 10
MAX_MESSAGE_LENGTH = 1200  # JSON writes a character in at most 6 bytes: under 8 KiB

# Custom pydantic error types whose messages are our own sentences.
UNSUPPORTED = "unsupported_parameter"
REFUSED = "refused_value"


class ErrorObject(BaseModel):
    """What went wrong, as in OpenAI's API."""

    message: Annotated[str, Field(description="What is wrong and what to do, in a sentence.")]
    type: Annotated[str, Field(description="invalid_request_error or server_error.")]
    param: Annotated[str | None, Field(description="The parameter at fault.")]
    code: Annotated[str, Field(description="A stable name of the problem.")]


class ErrorResponse(BaseModel):
    """The body of every answer that is not a success, on every path."""

    error: ErrorObject


def error_bytes(message: str, *, type: str, param: str | None, code: str) -> bytes:
    if len(message) > MAX_MESSAGE_LENGTH:
        message = message[: MAX_MESSAGE_LENGTH - 1] + "…"
    error = {"message": message, "type": type, "param": param, "code": code}
    return json.dumps({"error": error}, ensure_ascii=False).encode(errors="replace")


def failure_bytes(error: Exception) -> bytes:
    """The error object for `error`; what we did not raise on purpose is not described."""
    if isinstance(error, RequestError | ServiceError):
        return error_bytes(error.message, type=error.type, param=error.param, code=error.code)
    return error_bytes(
        "The server failed to answer. Its log tells why, under this answer's X-Request-Id.",
        type="server_error",
        param=None,
        code="internal_error",
    )


def error_response(error: Exception) -> Response:
    status, headers = 500, {}
    if isinstance(error, RequestError | ServiceError):
        status = error.status
    if isinstance(error, ServiceError) and error.retry_after_s is not None:
        headers["Retry-After"] = str(error.retry_after_s)
    if isinstance(error, PayloadTooLarge):
        headers["Connection"] = "close"  # the rest of the body is not read
    return Response(failure_bytes(error), status, headers, media_type="application/json")


@contextmanager
def naming(param: str) -> Iterator[None]:
    """The service speaks of a prompt; the client may have called it something else."""
    try:
        yield
    except RequestError as error:
        if error.param == "prompt":
            error.param = param
        raise


def install_error_handlers(app: FastAPI) -> None:
    app.add_exception_handler(ApplianceError, _answer_ours)
    app.add_exception_handler(HTTPException, _answer_routing)


def answer_error(error: Exception, metrics: Metrics) -> Response:
    if isinstance(error, RequestError | ServiceError):
        metrics.count_rejection(error.code)
    return error_response(error)


async def _answer_ours(request: Request, error: Exception) -> Response:
    return answer_error(error, cast("ApplianceState", request.app.state.appliance).metrics)


async def _answer_routing(request: Request, error: Exception) -> Response:
    """Starlette's own: no such path, or not with this method."""
    status = cast("HTTPException", error).status_code
    if status == 405:
        allowed = (cast("HTTPException", error).headers or {}).get("Allow", "")
        refusal = MethodNotAllowed(f"This path answers {allowed}, not this method.")
        response = await _answer_ours(request, refusal)
        response.headers["Allow"] = allowed
        return response
    if status == 404:
        return await _answer_ours(
            request, NotFound("There is nothing at this path; GET /docs lists what there is.")
        )
    return await _answer_ours(request, InvalidRequest("The request cannot be understood."))


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
     "dict_type", "model_type", "model_attributes_type"),
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
    """`temperature` is 3; it must be at most 2. Of the input, only numbers and kinds are told."""
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
