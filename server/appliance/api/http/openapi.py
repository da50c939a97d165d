"""Describes the API with FastAPI, which does not serve it.

Imported at the first request for the description: FastAPI takes longer to import than all faces
together.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from inspect import Parameter, Signature
from typing import Annotated, Any

from fastapi import Body, FastAPI, Query, Response
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from fastapi.telemetry import TelemetryConfig
from pydantic.warnings import UnsupportedFieldAttributeWarning

import appliance
from appliance.api.http.face import Face
from appliance.api.http.route import Route

DESCRIPTION = """One language model behind OpenAI's API and a small one of its own.

Every answer that is not a success has the body `{"error": {"message", "type", "param", "code"}}`.
A parameter that cannot be honoured is refused by name. Every answer to a request that could be
read carries `X-Request-Id`, the client's own where it sent one.
"""

# This product sends no telemetry, even if its environment configures OpenTelemetry.
NO_TELEMETRY: TelemetryConfig = {
    "tracing": False,
    "metrics": False,
    "logs": False,
    "operation_spans": False,
    "auto_configure": False,
}


def describe(faces: Sequence[Face]) -> dict[str, Any]:
    """OpenAPI 3.1 of all routes that have a summary."""
    app = FastAPI(
        title="Llama Appliance",
        version=appliance.__version__,
        description=DESCRIPTION,
        openapi_tags=[dict(tag) for face in faces for tag in face.tags],
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=operation_id,
        telemetry=NO_TELEMETRY,
    )
    for route in (route for face in faces for route in face.routes if route.is_described):
        add(app, route)
    with warnings.catch_warnings():  # FastAPI 0.165 silences it for models that are built early
        warnings.simplefilter("ignore", UnsupportedFieldAttributeWarning)
        return app.openapi()


def operation_id(route: APIRoute) -> str:
    return route.name


def add(app: FastAPI, route: Route) -> None:
    app.add_api_route(
        route.path,
        stand_in(route),
        name=route.endpoint.__name__,
        methods=[route.method],
        summary=route.summary,
        description=route.description,
        response_description=route.response_description,
        response_model=route.response_model,
        responses={status: dict(response) for status, response in route.responses.items()},
        response_class=Response if route.media_type is None else JSONResponse,
        tags=list(route.tags),
        openapi_extra=form_body(route) if route.form is not None else None,
    )


def stand_in(route: Route) -> Any:
    """A function with the parameters of the endpoint, as FastAPI reads them."""

    async def endpoint() -> None:
        """Never called."""

    parameters = {
        segment[1:-1].partition(":")[0]: int if segment.endswith(":int}") else str
        for segment in route.path.split("/")
        if segment.startswith("{")
    }
    annotations: dict[str, Any] = dict(parameters)
    if route.query is not None:
        annotations["query"] = Annotated[route.query, Query()]
    if route.body is not None and route.form is None:
        body = Body(openapi_examples=route.examples or None)  # type: ignore[arg-type]
        annotations["body"] = Annotated[route.body, body]
    endpoint.__signature__ = Signature(  # type: ignore[attr-defined]
        [
            Parameter(name, Parameter.KEYWORD_ONLY, annotation=annotation)
            for name, annotation in annotations.items()
        ]
    )
    return endpoint


def form_body(route: Route) -> dict[str, Any]:
    """What FastAPI describes only with a parser of forms at hand: the fields, and a file."""
    schema: dict[str, Any] = (
        {"type": "object"} if route.body is None else route.body_adapter.json_schema()
    )
    file = {"type": "string", "format": "binary"}
    schema["properties"] = {**schema.get("properties", {}), "file": file}
    return {"requestBody": {"content": {"multipart/form-data": {"schema": schema}}}}
