"""The host loads one model after the other, keeps its books of memory, and unloads idle ones."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from appliance.completion import CompletionRequest
from appliance.errors import ModelDoesNotFit, ModelNotFound, ModelUnavailable, NotReady
from appliance.metrics import Metrics
from appliance.models.hashing import FileHasher
from appliance.models.host import MIN_IDLE_S, ModelHost, Surroundings, open_models
from appliance.models.options import load_configuration
from tests.fakes import FakeClock
from tests.machines import FakeMachine, built_library
from tests.model_factory import write_model

GENEROUS = 8 * 10**9


@dataclass
class Only:
    """Somebody who may use some models."""

    models: tuple[str, ...]

    def may_use(self, model: str) -> bool:
        return model in self.models


@dataclass
class HostSetup:
    """A host of tiny models in a directory, with a clock and a memory of the test's."""

    directory: Path
    free_bytes: int = GENEROUS
    clock: FakeClock = field(default_factory=FakeClock)
    num_loads: int = 0
    load_began: asyncio.Event = field(default_factory=asyncio.Event)

    def host(self, *specs: str) -> ModelHost:
        paths = (f"{name}={self.directory / name}{rest}" for name, rest in map(split, specs))
        options = load_configuration({}, {"threads": 1, "max_sequences": 2}, list(paths)).models
        machine = FakeMachine(library=built_library(), free_bytes=self.free_bytes)
        surroundings = Surroundings(
            machine=machine,
            hasher=FileHasher(),
            metrics=Metrics(),
            run_in_thread=self.load,
            clock=self.clock,
        )
        return ModelHost(open_models(options, FileHasher()), surroundings)

    async def load(self, work: Callable[[], Any]) -> Any:
        self.num_loads += 1
        self.load_began.set()
        return await asyncio.to_thread(work)


def split(spec: str) -> tuple[str, str]:
    name, comma, rest = spec.partition(",")
    return name, comma + rest


@pytest.fixture
def setup(tmp_path: Path) -> HostSetup:
    for name in ("a", "b"):
        write_model(tmp_path / name)
    return HostSetup(tmp_path)


def statuses(host: ModelHost) -> dict[str, str]:
    return {model.name: model.status for model in host.listed()}


async def close(host: ModelHost) -> None:
    await host.drain(0)
    host.stop()


def test_the_first_model_is_the_default_and_a_wrong_name_is_not_found(setup: HostSetup) -> None:
    async def scenario() -> None:
        host = setup.host("a", "b")
        with pytest.raises(NotReady, match="being loaded"):
            await host.find("a")
        await host.load_required()
        assert (await host.find()).identity.model == "a"
        assert (await host.find("b")).identity.model == "b"
        with pytest.raises(ModelNotFound, match="only a, b"):
            await host.find("c")
        await close(host)

    asyncio.run(scenario())


def test_who_may_not_use_a_model_cannot_tell_it_from_one_that_is_not_there(
    setup: HostSetup,
) -> None:
    async def scenario() -> None:
        host = setup.host("a", "b")
        await host.load_required()
        only_b = Only(("b",))
        assert (await host.find(None, only_b)).identity.model == "b"
        assert [model.name for model in host.listed(only_b)] == ["b"]
        for name in ("a", "c"):
            with pytest.raises(ModelNotFound, match="that model, only b"):
                await host.find(name, only_b)
        await close(host)

    asyncio.run(scenario())


def test_many_who_ask_at_once_wait_for_one_load(setup: HostSetup) -> None:
    async def scenario() -> None:
        host = setup.host("a", "b,load=first-use")
        await host.load_required()
        assert statuses(host) == {"a": "ready", "b": "unloaded"}
        found = await asyncio.gather(*(host.find("b") for _ in range(5)))
        assert {served.identity.model for served in found} == {"b"}
        assert setup.num_loads == 2
        await close(host)

    asyncio.run(scenario())


def test_who_leaves_while_a_model_loads_does_not_stop_the_load(setup: HostSetup) -> None:
    async def scenario() -> None:
        host = setup.host("a,load=first-use")
        first = asyncio.create_task(host.find("a"))
        await asyncio.sleep(0)
        first.cancel()
        assert (await host.find("a")).identity.model == "a"
        assert setup.num_loads == 1
        await close(host)

    asyncio.run(scenario())


def test_an_idle_model_is_unloaded_after_its_time_and_comes_back(setup: HostSetup) -> None:
    async def scenario() -> None:
        host = setup.host("a", "b,load=first-use,idle_unload_s=60")
        await host.load_required()
        await host.find("b")
        setup.clock.advance(59)
        await host.unload_idle()
        assert statuses(host)["b"] == "ready"
        setup.clock.advance(1)
        await host.unload_idle()
        assert statuses(host) == {"a": "ready", "b": "unloaded"}
        assert (await host.find("b")).identity.model == "b"
        await close(host)

    asyncio.run(scenario())


def test_a_model_that_answers_is_not_unloaded(setup: HostSetup) -> None:
    async def scenario() -> None:
        host = setup.host("a,idle_unload_s=1")
        await host.load_required()
        served = await host.find("a")
        request = CompletionRequest(request_id="r", prompt="hello", max_new_tokens=40)
        stream = await served.completions.start(request)
        setup.clock.advance(100)
        await host.unload_idle()
        assert statuses(host) == {"a": "ready"}
        await stream.follow(lambda _: None)
        stream.close()
        await close(host)

    asyncio.run(scenario())


def needed_bytes(setup: HostSetup) -> int:
    async def scenario() -> int:
        host = setup.host("a")
        await host.load_required()
        [model] = host.models
        assert model.loaded is not None
        await close(host)
        return model.loaded.plan.least_bytes

    return asyncio.run(scenario())


def test_what_was_promised_to_one_model_is_not_promised_to_the_next(setup: HostSetup) -> None:
    setup.free_bytes = needed_bytes(setup) + 100_000

    async def scenario() -> None:
        host = setup.host("a,cache_share=0.95", "b")
        with pytest.raises(ModelDoesNotFit, match=r"^The model b needs .* free beside a \("):
            await host.load_required()
        assert statuses(host) == {"a": "ready", "b": "failed"}
        await close(host)

    asyncio.run(scenario())


def test_an_idle_model_makes_room_for_one_that_is_asked_for(setup: HostSetup) -> None:
    setup.free_bytes = needed_bytes(setup) + 100_000

    async def scenario() -> None:
        options = "load=first-use,cache_share=0.95,idle_unload_s=600"
        host = setup.host(f"a,{options}", f"b,{options}")
        await host.find("a")
        with pytest.raises(ModelUnavailable, match=r"The model b needs .* free beside a \("):
            await host.find("b")  # a was used just now
        setup.clock.advance(MIN_IDLE_S)
        await host.find("b")
        assert statuses(host) == {"a": "unloaded", "b": "ready"}
        await close(host)

    asyncio.run(scenario())


def test_a_model_that_begins_to_answer_while_another_is_unloaded_stays(setup: HostSetup) -> None:
    async def scenario() -> None:
        host = setup.host("a,idle_unload_s=1", "b,idle_unload_s=1")
        await host.load_required()
        setup.clock.advance(100)
        unloading = asyncio.create_task(host.unload_idle())
        await asyncio.sleep(0)
        assert statuses(host) == {"a": "unloaded", "b": "ready"}
        served = await host.find("b")
        request = CompletionRequest(request_id="r", prompt="hello", max_new_tokens=40)
        stream = await served.completions.start(request)
        await unloading
        assert statuses(host) == {"a": "unloaded", "b": "ready"}
        await stream.follow(lambda _: None)
        stream.close()
        await close(host)

    asyncio.run(scenario())


def test_a_model_of_the_start_that_was_unloaded_is_loaded_for_all_who_ask(setup: HostSetup) -> None:
    async def scenario() -> None:
        host = setup.host("a,idle_unload_s=1")
        await host.load_required()
        setup.clock.advance(100)
        await host.unload_idle()
        setup.load_began.clear()
        first = asyncio.create_task(host.find("a"))
        await setup.load_began.wait()
        assert (await host.find("a")).identity.model == "a"
        await first
        assert setup.num_loads == 2
        await close(host)

    asyncio.run(scenario())


def test_a_model_of_the_start_that_could_not_come_back_is_tried_again(setup: HostSetup) -> None:
    setup.free_bytes = needed_bytes(setup) + 100_000

    async def scenario() -> None:
        options = "cache_share=0.95,idle_unload_s=600"
        host = setup.host(f"a,{options}", f"b,load=first-use,{options}")
        await host.load_required()
        setup.clock.advance(MIN_IDLE_S)
        await host.find("b")
        with pytest.raises(ModelUnavailable, match="The model a needs"):
            await host.find("a")
        setup.clock.advance(MIN_IDLE_S)
        assert (await host.find("a")).identity.model == "a"
        await close(host)

    asyncio.run(scenario())


def test_what_a_drain_finds_loading_is_not_left_running(setup: HostSetup) -> None:
    async def scenario() -> None:
        host = setup.host("a,load=first-use")
        waiting = asyncio.create_task(host.find("a"))
        await setup.load_began.wait()
        await host.drain(0)
        with pytest.raises(NotReady):
            await waiting
        assert [model.loaded for model in host.models] == [None]

    asyncio.run(scenario())


def test_a_drain_ends_the_wait_for_a_model_that_is_being_loaded(setup: HostSetup) -> None:
    async def scenario() -> None:
        has_begun, may_end = asyncio.Event(), asyncio.Event()

        async def load_slowly(work: Callable[[], Any]) -> Any:
            has_begun.set()
            await may_end.wait()
            return await asyncio.to_thread(work)

        setup.load = load_slowly  # type: ignore[method-assign]
        host = setup.host("a,load=first-use")
        asking = asyncio.create_task(host.find("a"))
        await has_begun.wait()
        await host.drain(0)
        with pytest.raises(NotReady, match="shutting down"):
            await asking
        may_end.set()
        await host.models[0].loading  # type: ignore[misc]
        assert host.models[0].loaded is None

    asyncio.run(scenario())
