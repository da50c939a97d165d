"""Runs the life of the server process: listen, load, answer, drain, exit."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextvars import Context
from dataclasses import dataclass
from ssl import SSLContext
from types import FrameType
from typing import NoReturn, Protocol, TypeVar

import uvicorn

from appliance.api.http.asgi import ASGIApp
from appliance.api.http.state import ApplianceState
from appliance.errors import StartupError
from appliance.serve.http1 import BoundedHttpProtocol
from appliance.serve.unread_answers import has_unread_bytes

logger = logging.getLogger(__name__)

T = TypeVar("T")

STALLED_AFTER_S = 120.0
MAX_FAILED_PROBES = 5  # in a row, until /livez asks for a restart
RESPONSE_POLL_S = 0.05


class DrainableEngine(Protocol):
    """The engines of the process, as far as its life depends on them."""

    @property
    def has_failed(self) -> bool: ...

    def is_stalled(self, after_s: float) -> bool: ...

    async def drain(self, timeout_s: float) -> None: ...

    def stop(self, timeout_s: float = 10.0) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Answering:
    """The result of a load: an engine, and a short completion that shows whether it works."""

    engine: DrainableEngine
    probe: Callable[[], Awaitable[object]]
    then: Callable[[], Coroutine[None, None, None]] | None = None  # runs until the drain


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """The times of a drain: `delay_s` until it begins, `timeout_s` for answers to end and be read.

    A failed engine is probed every `probe_interval_s`; a probe may take `probe_timeout_s`.
    """

    delay_s: float
    timeout_s: float
    poll_s: float = 1.0
    probe_interval_s: float = 5.0
    probe_timeout_s: float = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """TLS, and the work that runs beside the answers until the process ends."""

    tls: SSLContext | None = None
    background: Sequence[Callable[[], Coroutine[None, None, None]]] = ()


class ApplianceServer(uvicorn.Server):
    """Answers HTTP from the first moment: /health says loading while `load` makes the state ready.

    The first SIGTERM or SIGINT drains; the second ends the process at once. `say` writes to the
    terminal.
    """

    def __init__(
        self,
        app: ASGIApp,
        state: ApplianceState,
        load: Callable[[], Awaitable[Answering]],
        timing: Timing,
        say: Callable[[str], None],
        beside: Beside | None = None,
    ) -> None:
        tls = None if beside is None else beside.tls
        super().__init__(
            uvicorn.Config(
                app,
                loop="uvloop",
                lifespan="off",
                ws="none",
                http=BoundedHttpProtocol,
                log_config=None,
                access_log=False,
                server_header=False,
                workers=1,  # if unset, uvicorn reads this and the next from the environment
                proxy_headers=False,
                timeout_keep_alive=65,  # longer than the usual 60 s of a load balancer in front
                timeout_graceful_shutdown=5,
                ssl_context_factory=None if tls is None else lambda *_: tls,
            )
        )
        self.exit_code = 0
        self._state = state
        self._load = load
        self._timing = timing
        self._say = say
        self._beside = beside
        self._background: list[asyncio.Task[None]] = []
        self._engine: DrainableEngine | None = None
        self._num_failed_probes = 0
        self._is_ending = False
        self._ports: set[int] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loading: asyncio.Task[None] | None = None
        self._then: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until the end; a load that a signal interrupts ends with the process."""
        super().run(sockets)
        if self._engine is None:
            end_process(self.exit_code)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ports = {listener.getsockname()[1] for listener in sockets or ()}
        self._loop = asyncio.get_running_loop()
        self._loading = self._spawn(self._become_ready())
        if self._beside is not None:
            self._background = [self._spawn(work()) for work in self._beside.background]

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin the drain; called by the signal handler in the main thread, between byte codes."""
        if self._loop is None or self._is_ending:
            end_process(128 + sig)
        self._is_ending = True
        self._state.drain()
        # In a context of its own: the signal may interrupt a request, which has an id.
        self._loop.call_soon_threadsafe(
            lambda: self._spawn(self._end(signal.Signals(sig))), context=Context()
        )

    def _spawn(self, work: Awaitable[None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _become_ready(self) -> None:
        try:
            answering = await self._load()
        except StartupError as error:
            self._say(f"appliance: {error.message}\n")
            self._abandon(error.exit_code)
        except Exception:
            logger.exception("the model could not be loaded")
            self._abandon(StartupError.exit_code)
        else:
            self._engine = answering.engine
            self._state.is_stalled = self._is_stalled
            if answering.then is not None:
                self._then = self._spawn(answering.then())
            await self._watch(answering)

    def _abandon(self, exit_code: int) -> None:
        self._state.fail("The model could not be loaded.")
        self.exit_code = exit_code
        self.should_exit = True

    def _is_stalled(self) -> bool:
        """Tell whether only a restart can help."""
        is_stuck = self._engine is not None and self._engine.is_stalled(STALLED_AFTER_S)
        return is_stuck or self._num_failed_probes >= MAX_FAILED_PROBES

    async def _watch(self, answering: Answering) -> None:
        """Report in /health that the engine failed or recovered.

        Without probes it could not recover: a server that is not ready gets no requests."""
        engine = answering.engine
        while not (self.should_exit or self._is_ending):
            if not engine.has_failed:
                self._num_failed_probes = 0
                if self._state.status == "failed":
                    self._state.recover()
                await asyncio.sleep(self._timing.poll_s)
                continue
            if self._state.status == "ready":
                self._state.fail(
                    "The last forward passes all failed. The server's log has the cause."
                )
            await asyncio.sleep(self._timing.probe_interval_s)
            if engine.has_failed:
                await self._probe(answering)

    async def _probe(self, answering: Answering) -> None:
        """Probe once; the engine itself logs what goes wrong."""
        with contextlib.suppress(Exception):
            await asyncio.wait_for(answering.probe(), self._timing.probe_timeout_s)
        if answering.engine.has_failed:
            self._num_failed_probes += 1
            logger.warning("a probe failed", extra={"num_failed_probes": self._num_failed_probes})

    async def _end(self, received: signal.Signals) -> None:
        logger.info("draining", extra={"signal": received.name})
        if self._engine is None:  # no answer runs
            if self._loading is not None:
                self._loading.cancel()
        else:
            await asyncio.sleep(self._timing.delay_s)
            if self._then is not None:
                self._then.cancel()
            await self._finish_answers(self._engine)
            await in_daemon_thread(self._engine.stop)
        self.should_exit = True

    async def _finish_answers(self, engine: DrainableEngine) -> None:
        """Wait until all answers are computed and read, or the time is up."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timing.timeout_s
        await engine.drain(self._timing.timeout_s)
        while self._has_unread_answers() and loop.time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(RESPONSE_POLL_S)

    def _has_unread_answers(self) -> bool:
        return self._state.num_open_responses > 0 or any(map(has_unread_bytes, self._ports))


async def in_daemon_thread(work: Callable[[], T]) -> T:
    """Run work as asyncio.to_thread does, but do not let the end of the process wait for it."""
    done: concurrent.futures.Future[T] = concurrent.futures.Future()
    done.set_running_or_notify_cancel()  # from here on it cannot be cancelled

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as error:  # noqa: BLE001 - raised where it is awaited
            done.set_exception(error)

    threading.Thread(target=run, name="background", daemon=True).start()
    return await asyncio.wrap_future(done)


def end_process(exit_code: int) -> NoReturn:
    """Exit immediately without joining threads: one that loads a model can take minutes more."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(exit_code)


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; raise StartupError if the address cannot be used."""
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
