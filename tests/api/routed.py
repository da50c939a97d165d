"""A client of an application with faces of a test's own."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator

import httpx2

from appliance.api.http.errors import Problem
from appliance.api.http.face import Face
from appliance.api.http.request import Request
from appliance.api.http.response import JsonResponse, Response
from appliance.api.http.route import Endpoint, Route
from appliance.api.http.state import ApplianceState
from appliance.serve.app import create_app
from tests.api.conftest import make_state
from tests.api.fake_service import FakeService


def detail(problem: Problem) -> bytes:
    """Another product's shape of errors."""
    return json.dumps({"detail": problem.message, "where": problem.param}).encode()


def echo(name: str) -> Endpoint:
    """An endpoint that answers its own name and what it was called with."""

    async def endpoint(request: Request, **given: object) -> Response:
        return JsonResponse({"endpoint": name, **given})

    return endpoint


def route(method: str, path: str, name: str = "") -> Route:
    return Route(method=method, path=path, endpoint=echo(name or f"{method} {path}"))


def face(*routes: Route, name: str = "test") -> Face:
    return Face(name=name, routes=routes)


@contextlib.asynccontextmanager
async def client_of(
    *faces: Face, state: ApplianceState | None = None
) -> AsyncIterator[httpx2.AsyncClient]:
    app = create_app(state or make_state(FakeService()), faces)
    transport = httpx2.ASGITransport(app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
        yield client
