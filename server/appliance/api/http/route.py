"""A route: one method on one path, what it takes, and the function that answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from inspect import cleandoc
from typing import TYPE_CHECKING, Any

from pydantic import JsonValue, TypeAdapter, ValidationError

from appliance.api.http.errors import ErrorResponse, describe_problems
from appliance.api.http.response import JSON

if TYPE_CHECKING:
    from appliance.api.http.asgi import ASGIApp
    from appliance.api.http.upload import UploadLimits

Endpoint = Callable[..., Awaitable["ASGIApp"]]
Responses = Mapping[int | str, Mapping[str, Any]]
Examples = Mapping[str, Mapping[str, JsonValue]]

# "default" also keeps FastAPI from documenting a 422 that is never sent.
ERRORS: Responses = {
    400: {"model": ErrorResponse, "description": "The request cannot be honoured as it is."},
    413: {"model": ErrorResponse, "description": "The body is too large."},
    415: {"model": ErrorResponse, "description": "The body is not application/json."},
    503: {"model": ErrorResponse, "description": "Not ready or overloaded; see Retry-After."},
    "default": {"model": ErrorResponse, "description": "Any other failure has the same shape."},
}
MODEL_ERRORS: Responses = {
    **ERRORS,
    404: {"model": ErrorResponse, "description": "This server does not serve that model."},
}


@dataclass(frozen=True, kw_only=True)
class Route:
    """`endpoint` is called with keywords: `request`, each parameter of the path, and `body`,
    `query` or `form` where the route has them.

    A path is exact or a template: `{name}` is one segment, `{name:int}` one that is a whole
    number, and `{name:path}`, at the end, is all that is left, slashes included. The body of a
    request to a route without `body` and `form` is never read. Without `summary`, the route is
    not in the API's description.
    """

    method: str
    path: str
    endpoint: Endpoint
    body: Any = None  # a pydantic model: of the JSON, or of the fields beside an upload
    allows_empty: bool = False  # an empty body is an empty object
    query: Any = None  # without it, a query is ignored
    form: UploadLimits | None = None  # the body is multipart/form-data
    is_public: bool = False  # answered without a key
    words: Mapping[str, str] = field(default_factory=dict)  # before the face's: see Face.words
    tags: tuple[str, ...] = ()
    summary: str = ""
    response_description: str = "The answer."
    response_model: Any = None
    responses: Responses = field(default_factory=dict)
    examples: Examples = field(default_factory=dict)
    media_type: str | None = JSON  # None: `responses` says it all

    @property
    def reads_body(self) -> bool:
        return self.body is not None or self.form is not None

    @property
    def is_described(self) -> bool:
        return bool(self.summary)

    @property
    def description(self) -> str:
        return cleandoc(self.endpoint.__doc__ or "")

    @property
    def models(self) -> list[Any]:
        """The models that the API's description shows."""
        answers = [response.get("model") for response in self.responses.values()]
        models = [self.body, self.query, self.response_model, *answers]
        return [model for model in models if self.is_described and model is not None]

    @cached_property
    def body_adapter(self) -> TypeAdapter[Any]:
        """Built for the first request: many routes are never asked, and each costs a start."""
        return TypeAdapter[Any](self.body)

    @cached_property
    def query_adapter(self) -> TypeAdapter[Any]:
        return TypeAdapter[Any](self.query)


def validate(adapter: TypeAdapter[Any], value: object) -> object:
    """The model that `value` fits, or an InvalidRequest that names what does not."""
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        raise describe_problems(error.errors()) from None
