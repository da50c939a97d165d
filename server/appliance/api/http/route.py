"""The route class of every POST: strict JSON in, and no work for a client that has left."""

from __future__ import annotations

from hashlib import sha256
from typing import Annotated, Any, TypedDict, cast, get_type_hints

from fastapi import Depends, Request
from fastapi.routing import APIRoute
from pydantic import TypeAdapter, ValidationError
from starlette.types import Receive, Scope, Send

from appliance.api.http.body import read_json
from appliance.api.http.disconnect import run_while_connected
from appliance.api.http.errors import ErrorResponse, answer_error, describe_problems
from appliance.api.http.state import ApplianceState
from appliance.api.schema.prompts import check_num_ids
from appliance.completion import Served
from appliance.errors import ApplianceError


async def get_state(request: Request) -> ApplianceState:
    return cast("ApplianceState", request.app.state.appliance)


StateDependency = Annotated[ApplianceState, Depends(get_state)]

# "default" also keeps FastAPI from documenting a 422 that is never sent.
ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorResponse, "description": "The request cannot be honoured as it is."},
    413: {"model": ErrorResponse, "description": "The body is too large."},
    415: {"model": ErrorResponse, "description": "The body is not application/json."},
    503: {"model": ErrorResponse, "description": "Not ready or overloaded; see Retry-After."},
    "default": {"model": ErrorResponse, "description": "Any other failure has the same shape."},
}
MODEL_ERRORS = ERRORS | {
    404: {"model": ErrorResponse, "description": "This server does not serve that model."}
}


class Asking(TypedDict):
    """The fields of CompletionRequest that say who asks."""

    request_id: str
    cache_salt: bytes


class Post(Request):
    """A request whose body has been read, and what its endpoint may want to know beside it."""

    @property
    def appliance(self) -> ApplianceState:
        return cast("ApplianceState", self.app.state.appliance)

    @property
    def request_id(self) -> str:
        return cast("str", self.scope["request_id"])

    async def find(self, model: str | None) -> Served:
        """Return the model of that name, or the first one; raises what `Models.find` does."""
        return await self.appliance.models.find(model)

    def asking(self) -> Asking:
        """Return who asks, as every CompletionRequest of this request says it."""
        return {"request_id": self.request_id, "cache_salt": self.cache_salt}

    @property
    def cache_salt(self) -> bytes:
        """Who brings the same key, or none, shares computed prompts: no stranger can time them."""
        return sha256(self.headers.get("authorization", "").encode()).digest()


class JsonRoute(APIRoute):
    """FastAPI describes it, we answer it: `endpoint(body, post)` for a body that fits its type.

    What FastAPI does for a request that nobody here needs took a third of a short answer's time.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._body_type: TypeAdapter[Any] = TypeAdapter(get_type_hints(self.endpoint)["body"])

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "POST":
            await self.answer(scope, receive, send)
        else:
            await super().handle(scope, receive, send)

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Reads the body with our limits, then drops the work if the client leaves before its end.

        Reached from the Edge without a search among all routes.
        """
        scope["route"] = self
        post = Post(scope, receive)
        state = post.appliance
        try:
            parsed = await read_json(post, state.max_body_bytes)
            name = parsed.get("model") if isinstance(parsed, dict) else None
            check_num_ids(parsed, state.models.context_limit(name))
        except ApplianceError as error:
            await answer_error(error, state.metrics)(scope, receive, send)
        else:
            await run_while_connected(receive, self._respond(parsed, post, send))

    async def _respond(self, parsed: object, post: Post, send: Send) -> None:
        try:
            response = await self.endpoint(self._validate(parsed), post)
        except ApplianceError as error:
            response = answer_error(error, post.appliance.metrics)
        await response(post.scope, post.receive, send)

    def _validate(self, parsed: object) -> object:
        try:
            return self._body_type.validate_python(parsed)
        except ValidationError as error:
            raise describe_problems(error.errors()) from None
