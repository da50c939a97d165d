"""GET /v1/key: a caller asks what its key may do, and what is left of its limits."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from appliance.api.http.response import JsonResponse
from appliance.api.http.route import ERRORS, Route

if TYPE_CHECKING:
    from appliance.access.quota import Left
    from appliance.api.http.asgi import ASGIApp
    from appliance.api.http.request import Request


class LimitObject(BaseModel):
    """A limit, and what is left of it."""

    model_config = ConfigDict(defer_build=True)

    limit: Annotated[int, Field(description="In a minute.")]
    remaining: Annotated[int, Field(description="Now.")]
    reset_seconds: Annotated[float, Field(description="Until all of it is there again.")]


class KeyObject(BaseModel):
    """What is known of the caller."""

    model_config = ConfigDict(defer_build=True)

    object: Literal["key"]
    name: Annotated[str, Field(description="Whose key it is; `anonymous` without access control.")]
    origin: Annotated[str, Field(description="key, jwt, kubernetes or anonymous.")]
    expires: Annotated[str | None, Field(description="When it stops working, in UTC.")]
    models: Annotated[list[str] | None, Field(description="What it may use; null: all.")]
    priority: Annotated[int, Field(description="Higher goes first.")]
    requests: Annotated[LimitObject | None, Field(description="Requests a minute; null: no limit.")]
    tokens: Annotated[LimitObject | None, Field(description="Tokens a minute; null: no limit.")]
    concurrent: Annotated[int | None, Field(description="Answers at a time; null: no limit.")]


async def get_key(request: Request) -> ASGIApp:
    """The name, limits and end of the key that the request brings."""
    visit = request.visit
    principal = visit.principal
    quota = None if visit.admission is None else visit.admission.quota
    expires = principal.expires_at
    time = None if expires is None else datetime.fromtimestamp(expires, UTC)
    answer = {
        "object": "key",
        "name": principal.name,
        "origin": principal.origin,
        "expires": None if time is None else time.isoformat(timespec="seconds"),
        "models": None if principal.models is None else sorted(principal.models),
        "priority": principal.priority,
        "requests": None if quota is None else _limit(quota.requests_left),
        "tokens": None if quota is None else _limit(quota.tokens_left),
        "concurrent": principal.limits.concurrent,
    }
    return JsonResponse(answer, headers={"Cache-Control": "no-store"})


def _limit(left: Left | None) -> dict[str, object] | None:
    if left is None:
        return None
    reset_s = round(left.reset_s, 2)
    return {"limit": left.limit, "remaining": left.remaining, "reset_seconds": reset_s}


KEY_ROUTE = Route(
    method="GET",
    path="/v1/key",
    endpoint=get_key,
    tags=("Operations",),
    summary="About the caller's key",
    response_description="The key.",
    response_model=KeyObject,
    responses={"default": ERRORS["default"]},
)
