"""Runs work for a client only as long as the client is there."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, TypeVar, cast

if TYPE_CHECKING:
    from appliance.api.http.asgi import Receive

T = TypeVar("T")


async def run_while_connected(receive: Receive, work: Coroutine[None, None, T]) -> T | None:
    """The result of `work`, or None if the client left first; `work` has then been cancelled.

    The request's body must have been read: what `receive` says after it is that the client left.
    """
    working = cast("asyncio.Task[object]", asyncio.current_task())
    has_left = False

    async def watch() -> None:
        nonlocal has_left
        while (await receive())["type"] != "http.disconnect":
            pass
        has_left = True
        working.cancel()

    watching = asyncio.create_task(watch())
    try:
        return await work
    except asyncio.CancelledError:
        if has_left and working.cancelling() == 1:
            return None
        raise  # by others, who want this to end
    finally:
        watching.cancel()
        if has_left:
            working.uncancel()
