"""The life of the server process: listen, load, answer, drain, exit."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from contextvars import Context
from dataclasses import dataclass
from types import FrameType
from typing import Protocol

import uvicorn
from fastapi import FastAPI

from appliance.api.protocol import BoundedHttpProtocol
from appliance.api.state import ApplianceState
from appliance.errors import StartupError

logger = logging.getLogger(__name__)

FAILURE_POLL_S = 1.0


class DrainableEngine(Protocol):
    """What the end of the process needs of the engine."""

    @property
    def has_failed(self) -> bool: ...

    async def drain(self, timeout_s: float) -> None: ...

    def stop(self, timeout_s: float = 10.0) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How long the end takes: serve on for `delay_s`, then give answers `timeout_s` to finish."""

    delay_s: float
    timeout_s: float


class ApplianceServer(uvicorn.Server):
    """Serves from the first moment: /health says loading while `load` makes the state ready.

    The first SIGTERM or SIGINT drains; the second ends the process at once.
    """

    def __init__(
        self,
        app: FastAPI,
        state: ApplianceState,
        load: Callable[[], Awaitable[DrainableEngine]],
        drain: Timing,
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                loop="uvloop",
                http=BoundedHttpProtocol,
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=65,  # longer than the usual 60 s of a load balancer in front
                timeout_graceful_shutdown=5,
            )
        )
        self.exit_code = 0
        self._state = state
        self._load = load
        self._drain = drain
        self._engine: DrainableEngine | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._loop = asyncio.get_running_loop()
        self._spawn(self._become_ready())

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Called by the signal handler, in the main thread, between two byte codes."""
        if self._loop is None or self._state.status == "draining":
            self.force_exit = self.should_exit = True
            self.exit_code = 128 + sig
            return
        self._state.drain()
        # A context of its own: the signal may interrupt a request, whose id is not ours.
        self._loop.call_soon_threadsafe(
            lambda: self._spawn(self._end(signal.Signals(sig))), context=Context()
        )

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _become_ready(self) -> None:
        try:
            self._engine = await self._load()
        except StartupError as error:
            sys.stderr.write(f"appliance: {error.message}\n")
            self._abandon(error.exit_code)
        except Exception:
            logger.exception("the model could not be loaded")
            self._abandon(StartupError.exit_code)
        else:
            await self._watch(self._engine)

    def _abandon(self, exit_code: int) -> None:
        self._state.fail("The model could not be loaded.")
        self.exit_code = exit_code
        self.should_exit = True

    async def _watch(self, engine: DrainableEngine) -> None:
        """Say so in /health when the engine fails, and when it recovers."""
        while not self.should_exit:
            if engine.has_failed and self._state.status == "ready":
                self._state.fail(
                    "The last forward passes all failed. The server's log has the cause."
                )
            elif not engine.has_failed and self._state.status == "failed":
                self._state.recover()
            await asyncio.sleep(FAILURE_POLL_S)

    async def _end(self, received: signal.Signals) -> None:
        logger.info("draining", extra={"signal": received.name})
        await asyncio.sleep(self._drain.delay_s)
        if self._engine is not None:
            await self._engine.drain(self._drain.timeout_s)
            await asyncio.to_thread(self._engine.stop)
        self.should_exit = True


def listen(host: str, port: int) -> socket.socket:
    """A listening socket, or a StartupError that says what is wrong with the address."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=2048, reuse_port=False)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        raise StartupError(
            f"Cannot listen on {host} port {port}: {reason}. "
            "Choose another address with --host or --port; --port 0 takes a free one."
        ) from None
    listener.setblocking(False)
    return listener
