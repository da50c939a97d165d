"""Leads each request to the one function that answers it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from appliance.api.http.body import read_json
from appliance.api.http.disconnect import run_while_connected
from appliance.api.http.face import NO_WORDS, Face
from appliance.api.http.query import read_query
from appliance.api.http.request import Headers, Request
from appliance.api.http.route import Route, validate
from appliance.api.http.state import ApplianceState
from appliance.api.http.table import Found, Handler, Missing, RouteTable
from appliance.api.http.upload import read_form
from appliance.api.schema.prompts import check_num_ids
from appliance.errors import (
    ApplianceError,
    MethodNotAllowed,
    NotFound,
    RequestError,
    ServiceError,
)

if TYPE_CHECKING:
    from appliance.api.http.asgi import Receive, Scope, Send

Arguments = dict[str, Any]
NO_HEADERS: Mapping[str, str] = {}


class Router:
    """Finds the route, reads what it takes, and calls its endpoint while the client is there."""

    def __init__(self, state: ApplianceState, faces: Sequence[Face]) -> None:
        self.state = state
        self.faces = faces
        self._table = RouteTable(faces)
        self._description: str | None = None

    async def describe(self) -> str:
        """The API's description as JSON, made when it is first asked for."""
        if self._description is None:
            for model in [model for face in self.faces for r in face.routes for model in r.models]:
                model.model_rebuild()  # in this thread, where requests are validated
                await asyncio.sleep(0)
            self._description = await asyncio.to_thread(_describe, self.faces)
        return self._description

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request. Errors raised on purpose are answered here, others reach the Edge."""
        found = self._table.find(scope["method"], scope["path"])
        gate = self.state.gate
        if isinstance(found, Missing):
            route, scope["face"] = None, found.face
        else:
            scope["app"], scope["handler"], scope["face"] = self, found.handler, found.handler.face
            route = found.handler.route
        record = gate.record(scope, receive, send, route)
        if record is not None:
            receive, send = record.receive, record.send
        try:
            await gate.enter(scope, Headers(scope["headers"]), route)
        except ApplianceError as error:
            await self.fail(error, scope, receive, send)
        else:
            await self._serve(found, scope, receive, send)
        finally:
            gate.leave(scope, record)

    async def _serve(
        self, found: Found | Missing, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Answers one who was let in."""
        if isinstance(found, Missing):
            await self._refuse(found.allowed, scope, receive, send)
            return
        handler = found.handler
        request = Request(scope, receive, self.state, handler)
        arguments: Arguments = {**found.parameters, "request": request}
        try:
            try:
                await self._read(handler.route, request, arguments)
            except ApplianceError as error:
                await self.fail(error, scope, receive, send)
                return
            work = self._respond(arguments, request, send)
            if handler.route.reads_body:
                await run_while_connected(receive, work)
            else:
                await work
        finally:
            if (form := arguments.get("form")) is not None:
                form.close()

    async def _read(self, route: Route, request: Request, arguments: Arguments) -> None:
        """Read the query, then the body, into `arguments`."""
        if route.query is not None:
            query = read_query(request.scope["query_string"])
            arguments["query"] = validate(route.query_adapter, query)
        if route.form is not None:
            form = arguments["form"] = await read_form(request, route.form)
            if route.body is not None:
                arguments["body"] = validate(route.body_adapter, form.values)
        elif route.body is not None:
            parsed = await read_json(
                request, self.state.max_body_bytes, allows_empty=route.allows_empty
            )
            name = parsed.get("model") if isinstance(parsed, dict) else None
            check_num_ids(parsed, self.state.models.context_limit(name))
            arguments["body"] = validate(route.body_adapter, parsed)

    async def _respond(self, arguments: Arguments, request: Request, send: Send) -> None:
        scope, receive = request.scope, request.receive
        try:
            response = await request.handler.route.endpoint(**arguments)
        except ApplianceError as error:
            await self.fail(error, scope, receive, send)
        else:
            await response(scope, receive, send)

    async def _refuse(
        self, allowed: Sequence[str], scope: Scope, receive: Receive, send: Send
    ) -> None:
        if not allowed:
            missing = NotFound("No such path. GET /docs lists the endpoints.")
            await self.fail(missing, scope, receive, send)
            return
        methods = ", ".join(allowed)
        refusal = MethodNotAllowed(f"This path answers {methods}, not this method.")
        await self.fail(refusal, scope, receive, send, {"Allow": methods})

    async def fail(
        self,
        error: Exception,
        scope: Scope,
        receive: Receive,
        send: Send,
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> None:
        """Send an error in the words of the face, and the route, that the request has reached."""
        if isinstance(error, RequestError | ServiceError):
            self.state.metrics.count_rejection(error.code)
        handler: Handler | None = scope.get("handler")
        face: Face = scope.get("face", self.faces[0])
        words = handler.route.words if handler is not None else NO_WORDS
        response = face.error_response(error, words, headers)
        await response(scope, receive, send)


def _describe(faces: Sequence[Face]) -> str:
    from appliance.api.http.openapi import describe  # noqa: PLC0415  imports FastAPI, which is slow

    return json.dumps(describe(faces))
