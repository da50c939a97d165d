"""The life of the server: it drains what there is, recovers what failed, and ends when told."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field

import pytest

from appliance.api.http.state import ApplianceState
from appliance.metrics import Metrics
from appliance.models.table import ModelTable
from appliance.serve.app import create_app
from appliance.serve.lifecycle import (
    MAX_FAILED_PROBES,
    Answering,
    ApplianceServer,
    Timing,
    in_daemon_thread,
    listen,
)

TIMEOUT_S = 20
QUICK = Timing(
    delay_s=0, timeout_s=10, poll_s=0.001, probe_interval_s=0.001, probe_timeout_s=TIMEOUT_S
)


@dataclass
class FakeEngine:
    """An engine that fails for as long as a test wants."""

    has_failed: bool = False
    events: list[str] = field(default_factory=list)

    def is_stalled(self, after_s: float) -> bool:
        return False

    async def drain(self, timeout_s: float) -> None:
        self.events.append("drained")

    def stop(self, timeout_s: float = 10.0) -> None:
        self.events.append("stopped")


class Life:
    """A server whose load a test decides."""

    def __init__(self, load: Callable[[], Awaitable[Answering]], timing: Timing = QUICK) -> None:
        self.said: list[str] = []
        self.state = ApplianceState(
            metrics=Metrics(), models=ModelTable(), max_body_bytes=1, bound_host="127.0.0.1"
        )
        self.server = ApplianceServer(
            create_app(self.state), self.state, load, timing, self.said.append
        )

    def run(self, work: Callable[[], Coroutine[None, None, None]]) -> None:
        """Serve, and do `work` meanwhile."""

        async def serve() -> None:
            with listen("127.0.0.1", 0) as listener:
                task = asyncio.ensure_future(self.server.serve(sockets=[listener]))
                await until(lambda: self.server.started)
                await work()
                await task

        asyncio.run(asyncio.wait_for(serve(), TIMEOUT_S))

    def stop(self) -> None:
        self.server.handle_exit(signal.SIGTERM, None)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(TIMEOUT_S):
        while not condition():  # noqa: ASYNC110 - any condition, none of them an event
            await asyncio.sleep(0)


def answering(engine: FakeEngine, probe: Callable[[], Awaitable[object]]) -> Life:
    async def load() -> Answering:
        life.state.recover()
        return Answering(engine=engine, probe=probe)

    life = Life(load)
    return life


async def succeed() -> None:
    return


def test_a_signal_while_loading_ends_the_load_and_exits_with_zero() -> None:
    ended = threading.Event()
    released = threading.Event()

    async def load() -> Answering:
        try:
            await in_daemon_thread(lambda: released.wait(TIMEOUT_S))
        finally:
            ended.set()
        pytest.fail("the load went on")

    life = Life(load, Timing(delay_s=TIMEOUT_S, timeout_s=TIMEOUT_S))

    async def work() -> None:
        await asyncio.sleep(0)
        life.stop()

    life.run(work)
    released.set()
    assert ended.is_set()
    assert life.server.exit_code == 0
    assert life.state.status == "draining"


def test_an_error_in_a_daemon_thread_reaches_whoever_waits() -> None:
    def fail() -> None:
        raise LookupError

    with pytest.raises(LookupError):
        asyncio.run(in_daemon_thread(fail))


def test_a_failed_engine_that_a_probe_finds_well_is_ready_again() -> None:
    engine = FakeEngine()

    async def probe() -> None:
        engine.has_failed = False

    life = answering(engine, probe)

    async def work() -> None:
        await until(lambda: life.state.status == "ready")
        engine.has_failed = True
        await until(lambda: life.state.status == "failed")
        await until(lambda: life.state.status == "ready")
        assert not life.state.is_stalled()
        life.stop()

    life.run(work)


def test_an_engine_that_stays_failed_asks_for_a_restart() -> None:
    engine = FakeEngine(has_failed=True)
    num_probes = 0

    async def probe() -> None:
        nonlocal num_probes
        assert life.state.is_stalled() == (num_probes >= MAX_FAILED_PROBES)
        num_probes += 1
        raise RuntimeError

    life = answering(engine, probe)

    async def work() -> None:
        await until(lambda: num_probes > MAX_FAILED_PROBES)
        assert life.state.is_stalled()
        engine.has_failed = False
        await until(lambda: life.state.status == "ready")
        assert not life.state.is_stalled()
        life.stop()

    life.run(work)


def test_a_drain_waits_until_slow_readers_have_their_answers() -> None:
    engine = FakeEngine()
    life = answering(engine, succeed)

    async def work() -> None:
        await until(lambda: life.state.status == "ready")
        life.state.num_open_responses = 1
        life.stop()
        await until(lambda: "drained" in engine.events)
        await asyncio.sleep(0.2)  # longer than it takes to look
        assert engine.events == ["drained"]
        life.state.num_open_responses = 0

    life.run(work)
    assert engine.events == ["drained", "stopped"]
    assert life.server.exit_code == 0


def test_a_drain_gives_up_on_readers_at_the_deadline() -> None:
    engine = FakeEngine()

    async def load() -> Answering:
        life.state.recover()
        return Answering(engine=engine, probe=succeed)

    life = Life(load, Timing(delay_s=0, timeout_s=0.1))

    async def work() -> None:
        await until(lambda: life.state.status == "ready")
        life.state.num_open_responses = 1
        life.stop()

    life.run(work)
    assert engine.events == ["drained", "stopped"]


def test_variables_of_other_servers_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEB_CONCURRENCY", "auto")
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "*")
    config = answering(FakeEngine(), succeed).server.config
    assert config.workers == 1
    assert not config.proxy_headers
