"""A start imports and builds no more than serving takes; the rest waits for who asks for it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

PROGRAM = """
import asyncio, json, sys
import appliance.serve.wiring
from appliance.api.native.generate import GenerateRequest, GenerateResponse
from appliance.api.openai.chat_schema import ChatRequest
from appliance.serve.app import FACES, create_app
from tests.api.conftest import make_state
from tests.api.fake_service import FakeService

app = create_app(make_state(FakeService()))
MODELS = (GenerateRequest, GenerateResponse, ChatRequest)

def look():
    told = {
        "libraries": sorted({name.split(".")[0] for name in sys.modules} & LIBRARIES),
        "built": [model.__name__ for model in MODELS if model.__pydantic_complete__],
        "adapters": [
            route.path for face in FACES for route in face.routes if "body_adapter" in vars(route)
        ],
    }
    print(json.dumps(told))

LIBRARIES = {"fastapi", "fastapi_offline", "starlette", "jinja2", "torch", "transformers"}

async def ask(method, path, body=b""):
    statuses, messages = [], [{"type": "http.request", "body": body}]

    async def receive():
        return messages.pop() if messages else await asyncio.Future()

    async def send(message):
        statuses.append(message.get("status"))

    headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
    scope = {"type": "http", "method": method, "path": path, "headers": headers,
             "query_string": b""}
    await app(scope, receive, send)
    assert statuses[0] == 200, statuses

look()
asyncio.run(ask("GET", "/health"))
asyncio.run(ask("GET", "/"))
asyncio.run(ask("GET", "/docs/assets/swagger-ui.css"))
look()
asyncio.run(ask("POST", "/generate", b'{"prompt": "Hi"}'))
look()
asyncio.run(ask("GET", "/openapi.json"))
look()
"""


def test_what_serving_does_not_need_is_imported_and_built_when_it_is_asked_for() -> None:
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=60
    )
    assert run.stderr == ""
    started, looked_at, generated, described = map(json.loads, run.stdout.splitlines())
    nothing: Any = {"libraries": [], "built": [], "adapters": []}
    assert started == nothing
    assert looked_at == nothing
    assert generated == {"libraries": [], "built": [], "adapters": ["/generate"]}
    assert "fastapi" in described["libraries"]
    assert described["built"] == ["GenerateRequest", "GenerateResponse", "ChatRequest"]
