"""Lets pages of listed origins read answers; no other page of a browser can."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.api.http.response import Response

if TYPE_CHECKING:
    from appliance.api.http.request import Headers

EXPOSED = ", ".join([
    "X-Request-Id", "Retry-After", "X-Should-Retry",
    *(f"X-RateLimit-{part}-{of}" for part in ("Limit", "Remaining", "Reset")
      for of in ("Requests", "Tokens")),
])  # fmt: skip
METHODS = "GET, POST, PUT, PATCH, DELETE"
REQUEST_HEADERS = "Authorization, *"  # the star does not cover it
MAX_AGE_S = 600


def preflight(method: str, headers: Headers, origins: tuple[str, ...]) -> Response | None:
    """The answer to a browser that asks before it sends a request of another origin's page."""
    if method != "OPTIONS" or not headers.get("access-control-request-method"):
        return None
    if headers.get("origin") not in origins:
        return None
    return Response(
        b"",
        204,
        {
            "Access-Control-Allow-Methods": METHODS,
            "Access-Control-Allow-Headers": REQUEST_HEADERS,
            "Access-Control-Max-Age": str(MAX_AGE_S),
        },
    )


def origin_headers(headers: Headers, origins: tuple[str, ...]) -> list[tuple[bytes, bytes]]:
    """What an answer needs for a listed origin's page to read it. Never for credentials of a
    browser's own: such a page sends a key itself."""
    found = [(b"vary", b"Origin")]
    origin = headers.get("origin")
    if origin in origins:
        found += [
            (b"access-control-allow-origin", origin.encode("latin-1")),
            (b"access-control-expose-headers", EXPOSED.encode()),
        ]
    return found
