"""What a browser sees: the chat page and the API's description, all of it from this machine."""

from __future__ import annotations

import asyncio
import importlib.resources
import json
from pathlib import Path
from typing import cast

from fastapi import APIRouter, FastAPI, Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from appliance.api.http.route import StateDependency
from appliance.api.schema.examples import MODEL

router = APIRouter(include_in_schema=False)

WEB = Path(__file__).parent / "static"
DOCS_ASSETS = Path(str(importlib.resources.files("fastapi_offline"))) / "static"

# Nothing on our pages comes from or goes to another place.
STRICT = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
CHAT_POLICY = (
    f"{STRICT}; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'"
)
# Swagger UI and ReDoc put styles into the page, images into data: and ReDoc its search into a blob.
DOCS_POLICY = (
    f"{STRICT}; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:;"
    " connect-src 'self'; worker-src blob:; font-src 'self' data:"
)

# Never cached: Nix gives all files one time, so that a cache could not tell a new release.
FRESH = {"Cache-Control": "no-store"}

# ReDoc shows the logo of its makers from their servers; ours stands in for it.
REDOC_LOGO, OUR_LOGO = b"https://cdn.redoc.ly/redoc/logo-mini.svg", b"web/icon.svg"

SWAGGER_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Llama Appliance: API</title>
<link rel="icon" href="docs/assets/favicon.png">
<link rel="stylesheet" href="docs/assets/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="docs/assets/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""

SWAGGER_START = """SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  docExpansion: "list",
  defaultModelsExpandDepth: 0,
  validatorUrl: null,
});
"""

REDOC_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Llama Appliance: API reference</title>
<link rel="icon" href="docs/assets/favicon.png">
</head>
<body style="margin: 0">
<redoc spec-url="openapi.json" hide-logo></redoc>
<script src="docs/assets/redoc.standalone.js"></script>
</body>
</html>
"""


def install_pages(app: FastAPI) -> None:
    app.include_router(router)
    app.mount("/docs/assets", FreshFiles(directory=DOCS_ASSETS))
    app.mount("/web", FreshFiles(directory=WEB))


class FreshFiles(StaticFiles):
    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers.update(FRESH)
        return response


@router.get("/")
async def get_chat_page() -> Response:
    return FileResponse(
        WEB / "index.html",
        headers={"Content-Security-Policy": CHAT_POLICY, **FRESH},
    )


@router.get("/openapi.json")
async def get_description(request: Request, state: StateDependency) -> Response:
    """The API's description, its examples written for the model that is running."""
    description = json.dumps(cast("FastAPI", request.app).openapi())
    for listed in state.models.listed()[:1]:
        description = description.replace(json.dumps(MODEL), json.dumps(listed.name))
    return Response(description, media_type="application/json")


@router.get("/docs")
async def get_docs() -> Response:
    return HTMLResponse(SWAGGER_PAGE, headers={"Content-Security-Policy": DOCS_POLICY})


@router.get("/docs/start.js")
async def get_docs_start() -> Response:
    return Response(SWAGGER_START, media_type="text/javascript")


@router.get("/docs/assets/redoc.standalone.js")
async def get_reference_script() -> Response:
    script = await asyncio.to_thread((DOCS_ASSETS / "redoc.standalone.js").read_bytes)
    script = script.replace(REDOC_LOGO, OUR_LOGO)
    return Response(script, media_type="text/javascript", headers=FRESH)


@router.get("/redoc")
async def get_reference() -> Response:
    return HTMLResponse(REDOC_PAGE, headers={"Content-Security-Policy": DOCS_POLICY})
