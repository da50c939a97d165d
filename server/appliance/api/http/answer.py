"""Answers a request for text, whole or as it grows, in the words of one face of the API."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from appliance.api.http.request import Request
from appliance.api.http.response import JsonResponse, Response
from appliance.api.http.sse import Renderer, start_stream
from appliance.completion import Completion, CompletionRequest, Completions, Served


class Writer(Renderer, Protocol):
    """How one face of the API writes answers to requests that came as one."""

    def whole(self, completions: Sequence[Completion]) -> object:
        """What is sent, as JSON, when all is done."""


async def answer(
    request: Request,
    served: Served,
    completions: Sequence[CompletionRequest],
    writer: Writer,
    *,
    streams: bool | None,
) -> Response:
    service = served.completions
    if streams:
        interval_s = request.appliance.ping_interval_s
        return await start_stream(service, completions, writer, request.error_bytes, interval_s)
    return JsonResponse(writer.whole(await complete_all(service, completions)))


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
