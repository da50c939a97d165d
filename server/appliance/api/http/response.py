"""An answer that is sent whole."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from appliance.api.http.asgi import Receive, Scope, Send

JSON = "application/json"

# Compact JSON in ASCII: no byte of a text can be taken for the end of a line of a stream.
encode_json: Callable[[object], str] = json.JSONEncoder(separators=(",", ":")).encode


def json_bytes(value: object) -> bytes:
    return encode_json(value).encode()


class Response:
    """A status, headers and a body; text types are sent in UTF-8."""

    media_type: str | None = None

    def __init__(
        self,
        content: bytes | str = b"",
        status_code: int = 200,
        headers: Mapping[str, str] | None = None,
        media_type: str | None = None,
    ) -> None:
        self.body = content.encode() if isinstance(content, str) else content
        self.status_code = status_code
        self.raw_headers = [
            (name.lower().encode("latin-1"), value.encode("latin-1"))
            for name, value in (headers or {}).items()
        ]
        kind = media_type or self.media_type
        if kind is not None:
            charset = "; charset=utf-8" if kind.startswith("text/") else ""
            self.raw_headers.append((b"content-type", f"{kind}{charset}".encode("latin-1")))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        length = (b"content-length", b"%d" % len(self.body))
        headers = [*self.raw_headers, length]
        await send({"type": "http.response.start", "status": self.status_code, "headers": headers})
        await send({"type": "http.response.body", "body": self.body})


class JsonResponse(Response):
    """A value as JSON."""

    media_type = JSON

    def __init__(
        self, value: object, status_code: int = 200, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(json_bytes(value), status_code, headers)
