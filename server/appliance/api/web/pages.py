"""What a browser sees: the chat page and the API's description, all of it from this machine."""

from __future__ import annotations

import asyncio
import functools
import importlib.util
import json
from pathlib import Path

from appliance.api.http.face import Face
from appliance.api.http.request import Request
from appliance.api.http.response import JSON, Response
from appliance.api.http.route import Endpoint, Route
from appliance.api.schema.examples import MODEL
from appliance.errors import NotFound

HTML = "text/html"
MEDIA_TYPES = {
    ".css": "text/css",
    ".html": HTML,
    ".js": "text/javascript",
    ".png": "image/png",
    ".svg": "image/svg+xml",
}

WEB = Path(__file__).parent / "static"

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


async def get_chat_page(request: Request) -> Response:
    """Return the chat page."""
    response = await read_file(WEB, "index.html")
    response.raw_headers.append((b"content-security-policy", CHAT_POLICY.encode()))
    return response


async def get_description(request: Request) -> Response:
    """Return the API's description, with examples for the first model."""
    description = await request.describe()
    for listed in request.appliance.models.listed(request.visit.principal)[:1]:
        description = description.replace(json.dumps(MODEL), json.dumps(listed.name))
    return Response(description, media_type=JSON)


async def get_docs(request: Request) -> Response:
    """Return the API's reference, with requests to try."""
    return page(SWAGGER_PAGE)


async def get_docs_start(request: Request) -> Response:
    """Return the script that starts the page of /docs."""
    return Response(SWAGGER_START, headers=FRESH, media_type=MEDIA_TYPES[".js"])


async def get_reference(request: Request) -> Response:
    """Return the API's reference, for reading."""
    return page(REDOC_PAGE)


def page(content: str) -> Response:
    headers = {"Content-Security-Policy": DOCS_POLICY, **FRESH}
    return Response(content, headers=headers, media_type=HTML)


async def get_web_file(name: str, request: Request) -> Response:
    """Return a file of the chat page."""
    return await read_file(WEB, name)


async def get_docs_file(name: str, request: Request) -> Response:
    """Return a file of the pages of /docs and /redoc."""
    response = await read_file(docs_assets(), name)
    if name == "redoc.standalone.js":
        response.body = response.body.replace(REDOC_LOGO, OUR_LOGO)
    return response


@functools.cache
def docs_assets() -> Path:
    """Where a package keeps them that we read but do not import: FastAPI would come with it."""
    spec = importlib.util.find_spec("fastapi_offline")
    if spec is None or not spec.submodule_search_locations:
        raise NotFound("This server was installed without the pages of /docs and /redoc.")
    return Path(spec.submodule_search_locations[0]) / "static"


async def read_file(folder: Path, name: str) -> Response:
    """A file right in `folder`, whose name is one of a list and never a path."""

    def read() -> bytes:
        if name not in {path.name for path in folder.iterdir()}:
            raise NotFound("No such path. GET /docs lists the endpoints.")
        return (folder / name).read_bytes()

    content = await asyncio.to_thread(read)
    return Response(content, headers=FRESH, media_type=MEDIA_TYPES.get(Path(name).suffix))


PAGES: dict[str, Endpoint] = {
    "/": get_chat_page,
    "/web/{name}": get_web_file,
    "/openapi.json": get_description,
    "/docs": get_docs,
    "/docs/start.js": get_docs_start,
    "/docs/assets/{name}": get_docs_file,
    "/redoc": get_reference,
}

WEB_FACE = Face(
    name="web",
    routes=[Route(method="GET", path=path, endpoint=page) for path, page in PAGES.items()],
)
