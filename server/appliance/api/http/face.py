"""A face of the API: the routes of one dialect, its words for parameters, its shape of errors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypedDict

from appliance.api.http.errors import Problem, describe_error, openai_body
from appliance.api.http.response import JSON, Response
from appliance.api.http.route import Route

NO_WORDS: Mapping[str, str] = {}


class Tag(TypedDict):
    """A heading of the API's description."""

    name: str
    description: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Face:
    """`words` maps a field of the domain (appliance/errors.py) to what clients of this face call
    it; a route's own words come first. `write_error` makes the body of every failure."""

    name: str
    routes: Sequence[Route]
    tags: Sequence[Tag] = ()
    words: Mapping[str, str] = field(default_factory=dict)
    write_error: Callable[[Problem], bytes] = openai_body

    def error_bytes(self, error: Exception, words: Mapping[str, str] = NO_WORDS) -> bytes:
        return self.write_error(describe_error(error, {**self.words, **words}))

    def error_response(
        self, error: Exception, words: Mapping[str, str], headers: Mapping[str, str]
    ) -> Response:
        problem = describe_error(error, {**self.words, **words})
        body = self.write_error(problem)
        return Response(body, problem.status, {**problem.headers, **headers}, JSON)
