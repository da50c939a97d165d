"""The route class of every POST: strict JSON in, and no work for a client that has left."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from hashlib import sha256
from typing import Annotated, Any, cast

from fastapi import Depends, Request
from fastapi.routing import APIRoute
from pydantic import JsonValue
from starlette.responses import Response

from appliance.api.body import read_json
from appliance.api.disconnect import run_while_connected
from appliance.api.errors import CLIENT_CLOSED_REQUEST, ErrorResponse
from appliance.api.openai.prompts import check_num_ids
from appliance.api.state import ApplianceState


async def get_state(request: Request) -> ApplianceState:
    return cast("ApplianceState", request.app.state.appliance)


async def get_request_id(request: Request) -> str:
    return cast("str", request.scope["request_id"])


async def get_cache_salt(request: Request) -> bytes:
    """Who brings the same key, or none, shares computed prompts; a stranger cannot time them."""
    return sha256(request.headers.get("authorization", "").encode()).digest()


StateDependency = Annotated[ApplianceState, Depends(get_state)]
RequestIdDependency = Annotated[str, Depends(get_request_id)]
CacheSaltDependency = Annotated[bytes, Depends(get_cache_salt)]

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


class JsonRequest(Request):
    """A request whose body has been read and parsed by us."""

    parsed: JsonValue = None

    async def body(self) -> bytes:
        return b"read"  # FastAPI asks only whether there is one

    async def json(self) -> JsonValue:
        return self.parsed


class JsonRoute(APIRoute):
    """Reads the body with our limits, and drops the work if the client leaves before its answer."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_json(request: Request) -> Response:
            state = await get_state(request)
            json_request = JsonRequest(request.scope, request.receive)
            json_request.parsed = await read_json(request, state.max_body_bytes)
            check_num_ids(json_request.parsed, state.max_context_tokens)
            response = await run_while_connected(request.receive, handle(json_request))
            return response or Response(status_code=CLIENT_CLOSED_REQUEST)

        return handle_json
