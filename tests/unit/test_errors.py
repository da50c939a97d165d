"""Every error has the status and the code its tree in the docstring promises."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from appliance import errors
from appliance.errors import (
    ApplianceError,
    EngineFailure,
    InvalidRequest,
    ModelRefused,
    Overloaded,
    QueueTimeout,
    RequestError,
    ServiceError,
    StartupError,
)

Kind = type[ApplianceError]


def below(kind: Kind) -> Iterator[Kind]:
    for child in kind.__subclasses__():
        yield child
        yield from below(child)


# "│   ├── NotFound   404  not_found" in the docstring; a status may come without a code of its own.
DRAWN = re.findall(r"[├└]── (\w+) +(\d{3}) +(\w+)", errors.__doc__ or "")
WITH_STATUS = [kind for kind in below(ApplianceError) if hasattr(kind, "status")]


def code_of(kind: Kind) -> str:
    if issubclass(kind, RequestError):
        return kind.default_code
    assert issubclass(kind, ServiceError)
    return kind.code


@pytest.mark.parametrize(("name", "status", "code"), DRAWN, ids=[row[0] for row in DRAWN])
def test_the_tree_in_the_docstring_is_the_tree(name: str, status: str, code: str) -> None:
    kind = getattr(errors, name)
    assert kind.status == int(status)
    assert code_of(kind) == code


def test_the_docstring_draws_every_error() -> None:
    own = [kind for kind in below(ApplianceError) if kind.__module__ == errors.__name__]
    assert len(own) > 10
    for kind in own:
        assert re.search(rf"── {kind.__name__}\b", errors.__doc__ or ""), kind.__name__


@pytest.mark.parametrize("kind", WITH_STATUS)
def test_codes_are_snake_case(kind: Kind) -> None:
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", code_of(kind))


def test_a_request_error_carries_parameter_and_code() -> None:
    error = InvalidRequest("top_p is 3; at most 1.", param="top_p", code="too_large")
    assert (error.message, error.param, error.code) == (
        "top_p is 3; at most 1.",
        "top_p",
        "too_large",
    )
    assert str(error) == error.message
    assert InvalidRequest("no").code == "invalid_value"
    assert InvalidRequest("no").param is None


@pytest.mark.parametrize("kind", [Overloaded, QueueTimeout])
def test_a_client_is_told_to_come_back_when_that_helps(kind: type[ServiceError]) -> None:
    assert (kind("later").retry_after_s or 0) >= 1
    assert EngineFailure("broken").retry_after_s is None


def test_an_error_at_start_has_no_status() -> None:
    assert issubclass(ModelRefused, StartupError)
    assert not any(issubclass(kind, StartupError) for kind in WITH_STATUS)
