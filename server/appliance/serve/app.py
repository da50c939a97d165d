"""Puts the HTTP faces together into one application."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.routing import APIRoute
from fastapi.telemetry import TelemetryConfig

import appliance
from appliance.api.http.edge import Edge
from appliance.api.http.errors import install_error_handlers
from appliance.api.http.route import JsonRoute
from appliance.api.http.state import ApplianceState
from appliance.api.native import generate, tokens
from appliance.api.openai import chat, completions, embeddings, models
from appliance.api.ops import health
from appliance.api.web.pages import install_pages

DESCRIPTION = """One language model behind OpenAI's API and a small one of its own.

Every answer that is not a success has the body `{"error": {"message", "type", "param", "code"}}`.
A parameter that cannot be honoured is refused by name. Every answer to a request that could be
read carries `X-Request-Id`, the client's own where it sent one.
"""

TAGS = [
    {"name": "OpenAI", "description": "For clients that speak OpenAI's API."},
    {"name": "Native", "description": "A prompt in, its continuation out."},
    {"name": "Tokens", "description": "Text to token ids and back."},
    {"name": "Operations", "description": "Health, identity and metrics."},
]

# This product reports to nobody, whatever OpenTelemetry finds in its environment.
NO_TELEMETRY: TelemetryConfig = {
    "tracing": False,
    "metrics": False,
    "logs": False,
    "operation_spans": False,
    "auto_configure": False,
}


def create_app(state: ApplianceState) -> FastAPI:
    """The application that serves `state`; it can answer /health before the model is loaded."""
    app = FastAPI(
        title="Llama Appliance",
        version=appliance.__version__,
        description=DESCRIPTION,
        openapi_tags=TAGS,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=operation_id,
        telemetry=NO_TELEMETRY,
    )
    app.state.appliance = state
    routers = [m.router for m in (chat, completions, embeddings, models, generate, tokens, health)]
    posts = {
        route.path: route
        for router in routers
        for route in router.routes
        if isinstance(route, JsonRoute)
    }
    app.add_middleware(Edge, state=state, posts=posts)
    install_error_handlers(app)
    for router in routers:
        app.include_router(router)
    install_pages(app)
    return app


def operation_id(route: APIRoute) -> str:
    return route.name
