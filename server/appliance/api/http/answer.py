"""Answers a request for text, whole or as it grows, in the words of one face of the API."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from starlette.responses import Response

from appliance.api.http.route import Post
from appliance.api.http.sse import Renderer, json_bytes, start_stream
from appliance.completion import Completion, CompletionRequest, Completions, Served


class Face(Renderer, Protocol):
    """How one face of the API writes answers to requests that came as one."""

    def whole(self, completions: Sequence[Completion]) -> object:
        """What is sent, as JSON, when all is done."""


async def answer(
    post: Post,
    served: Served,
    requests: Sequence[CompletionRequest],
    face: Face,
    *,
    streams: bool | None,
) -> Response:
    if streams:
        interval_s = post.appliance.ping_interval_s
        return await start_stream(served.completions, requests, face, interval_s)
    completions = await complete_all(served.completions, requests)
    return Response(json_bytes(face.whole(completions)), media_type="application/json")


async def complete_all(
    service: Completions, requests: Sequence[CompletionRequest]
) -> list[Completion]:
    """All of them side by side; the first that fails ends the others."""
    if len(requests) == 1:
        return [await service.complete(requests[0])]
    tasks = [asyncio.create_task(service.complete(request)) for request in requests]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
