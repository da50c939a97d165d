"""Hosts the models of a process: loads them one after the other, and unloads the idle ones."""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Protocol

from appliance.completion.protocol import ListedModel
from appliance.errors import (
    ModelDoesNotFit,
    ModelUnavailable,
    NotReady,
    SettingsError,
    StartupError,
)
from appliance.models.loading import find_model, load_model, probe, try_out
from appliance.models.plan import plan_runner
from appliance.models.table import LOADING, ModelTable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from appliance.completion.protocol import Asker, Served
    from appliance.engine.engine import Engine
    from appliance.engine.observer import EngineObserver
    from appliance.models.directory import ModelDirectory
    from appliance.models.hashing import FileHasher
    from appliance.models.identity import Identity
    from appliance.models.loading import Loaded
    from appliance.models.machine import Machine
    from appliance.models.options import ModelOptions
    from appliance.models.plan import LoadPlan

logger = logging.getLogger(__name__)

IDLE_POLL_S = 1.0
MIN_IDLE_S = 5.0  # until a model may have to make room for another
UNLOADED = "The model is not loaded; the first request that names it loads it."


class ModelMetrics(Protocol):
    """What is counted of models."""

    def observer(self, model: str) -> EngineObserver: ...

    def watch(self, identity: Identity, engine: Engine) -> None:
        """Show a model that was loaded."""

    def unwatch(self, model: str) -> None:
        """Forget the gauges of a model that was unloaded; its counters stay."""


class RunsInThread(Protocol):
    """Runs blocking work in a thread, and waits for it on the event loop."""

    def __call__(self, work: Callable[[], Loaded], /) -> Awaitable[Loaded]: ...


@dataclass(slots=True)
class Hosted:
    """One model of the configuration."""

    options: ModelOptions
    directory: ModelDirectory
    loaded: Loaded | None = None
    loading: asyncio.Task[None] | None = None
    was_loaded: bool = False
    used_at_s: float = 0.0

    @property
    def name(self) -> str:
        return self.directory.name


@dataclass(slots=True, kw_only=True)
class Surroundings:
    """What loading needs beside a model."""

    machine: Machine
    hasher: FileHasher
    metrics: ModelMetrics
    run_in_thread: RunsInThread
    generation: str | None = None
    clock: Callable[[], float] = field(default=time.monotonic)


class ModelHost(ModelTable):
    """Every model of this process. Used on the event loop only; loads run in a thread.

    Memory is planned for one model after the other: what a loaded model was promised counts as
    taken, though it may not have touched it yet.
    """

    def __init__(self, models: Sequence[Hosted], surroundings: Surroundings) -> None:
        super().__init__(*(_listed(model) for model in models))
        self._hosted = {model.name: model for model in models}
        self._surroundings = surroundings
        self._one_at_a_time = asyncio.Lock()
        self._free_at_start = surroundings.machine.free_memory_bytes()
        self._is_ending = False
        self._ending: asyncio.Future[None] | None = None  # done with a drain

    @property
    def models(self) -> Sequence[Hosted]:
        return list(self._hosted.values())

    async def load_required(self) -> None:
        """Load what the process must have to be ready; raises what hinders it."""
        for model in self._hosted.values():
            if model.options.is_required:
                await self._load(model)

    async def load_others(self) -> None:
        """Load what the configuration wants at the start but can do without."""
        for model in self._hosted.values():
            if model.options.is_loaded_at_start and model.loaded is None:
                try:
                    await self._load(model)
                except Exception:
                    logger.exception("a model was not loaded", extra={"model": model.name})

    async def find(self, name: str | None = None, asker: Asker | None = None) -> Served:
        listed = self.named(name, asker)
        model = self._hosted[listed.name]
        if model.loaded is None and _is_loaded_on_use(model):
            await self._load_on_use(model)
            listed = self.named(listed.name, asker)
        model.used_at_s = self._surroundings.clock()
        return listed.served or await super().find(listed.name, asker)

    async def _load_on_use(self, model: Hosted) -> None:
        """Load a model once for all who wait for it; who leaves does not stop it for the others."""
        if model.loading is None:
            model.loading = asyncio.create_task(self._load(model))
            model.loading.add_done_callback(partial(_forget_load, model))
        try:
            await self._unless_ending(model.loading)
        except StartupError as error:
            logger.warning("a model was not loaded", extra={"model": model.name, "why": str(error)})
            reason = "The server's log has the cause."
            if isinstance(error, ModelDoesNotFit):
                reason = error.numbers
            raise ModelUnavailable(
                f"The model {model.name} could not be loaded. {reason}"
            ) from error

    async def _unless_ending(self, loading: asyncio.Task[None]) -> None:
        """Wait for a load; a drain lets nobody wait for an answer that cannot come."""
        if self._ending is None:
            self._ending = asyncio.get_running_loop().create_future()
        await asyncio.wait({loading, self._ending}, return_when=asyncio.FIRST_COMPLETED)
        if not loading.done():
            raise NotReady("The server is shutting down. Try again in a moment.")
        loading.result()

    async def _load(self, model: Hosted) -> None:
        async with self._one_at_a_time:
            if model.loaded is not None or self._is_ending:
                return
            self.put(_listed(model, status="loading", reason=LOADING))
            try:
                loaded = await self._load_within_memory(model)
            except BaseException:
                reason = "The model could not be loaded."
                self.put(_listed(model, status="failed", reason=reason))
                raise
            if self._is_ending:  # the drain did not see this engine
                await _stop(loaded)
                self.put(_listed(model, status="unloaded", reason=UNLOADED))
                return
            model.loaded, model.used_at_s = loaded, self._surroundings.clock()
            model.was_loaded = True
            self.put(_listed(model, status="ready"))
            self._surroundings.metrics.watch(loaded.identity, loaded.engine)
            extra = {"model": model.name, "fingerprint": loaded.identity.fingerprint}
            level = logging.DEBUG if model.options.is_loaded_at_start else logging.INFO
            logger.log(level, "model loaded", extra=extra)

    async def _load_within_memory(self, model: Hosted) -> Loaded:
        """Load a model; where it does not fit beside the others, idle ones make room for it."""
        surroundings = self._surroundings
        while True:
            try:
                loaded = await surroundings.run_in_thread(lambda: self._plan_and_load(model))
                break
            except ModelDoesNotFit:
                idle = next(self._unused_models(lambda _: MIN_IDLE_S), None)
                if idle is None:
                    raise
                await self._unload(idle)
        try:
            await try_out(loaded.service)
        except BaseException:
            await _stop(loaded)
            raise
        return loaded

    def _plan_and_load(self, model: Hosted) -> Loaded:
        """Runs in a thread."""
        surroundings = self._surroundings
        others = [each.loaded.plan for each in self._hosted.values() if each.loaded is not None]
        plan = plan_runner(
            model.options,
            model.directory,
            surroundings.machine,
            taken_bytes=self._untouched_bytes(others),
        )
        if len(self._hosted) > 1:
            check_fit(model.name, plan, others)
        observer = surroundings.metrics.observer(model.name)
        return load_model(plan, surroundings.hasher, observer, surroundings.generation)

    def _untouched_bytes(self, plans: Sequence[LoadPlan]) -> int:
        """Return how much of the free memory was promised to loaded models."""
        free_now = self._surroundings.machine.free_memory_bytes()
        if free_now is None or self._free_at_start is None:
            return 0
        promised = sum(plan.needed_bytes for plan in plans if plan.device == "cpu")
        return max(promised - max(self._free_at_start - free_now, 0), 0)

    def _unused_models(self, after_s: Callable[[ModelOptions], float]) -> Iterator[Hosted]:
        """Those that may be unloaded and have been unused for so long, the longest first."""
        now_s = self._surroundings.clock()
        for model in sorted(self._hosted.values(), key=lambda model: model.used_at_s):
            options, loaded = model.options, model.loaded
            if options.idle_unload_s == 0 or loaded is None or _is_busy(loaded.engine):
                continue
            if now_s - model.used_at_s >= after_s(options):
                yield model

    async def unload_idle(self) -> None:
        """Unload what has been unused for its time; call it now and then."""
        async with self._one_at_a_time:
            # Asked anew after each: while one is unloaded, another may begin to answer.
            while (
                model := next(self._unused_models(lambda options: options.idle_unload_s), None)
            ) is not None:
                await self._unload(model)

    async def stay(self) -> None:
        """Load what may come later, then unload what is idle, for as long as the process lives."""
        await self.load_others()
        if not any(model.options.idle_unload_s for model in self._hosted.values()):
            return
        while not self._is_ending:
            await asyncio.sleep(IDLE_POLL_S)
            await self.unload_idle()

    async def _unload(self, model: Hosted) -> None:
        loaded, model.loaded = model.loaded, None
        if loaded is None:
            return
        self.put(_listed(model, status="unloaded", reason=UNLOADED))
        self._surroundings.metrics.unwatch(model.name)
        await _stop(loaded)
        del loaded
        gc.unfreeze()  # what was loaded may be part of a cycle, and was frozen at the start
        await asyncio.to_thread(gc.collect)
        gc.freeze()
        logger.info("model unloaded", extra={"model": model.name})

    # What the life of the process needs of engines, of all of them together.

    @property
    def has_failed(self) -> bool:
        return any(loaded.engine.has_failed for loaded in self._required())

    def is_stalled(self, after_s: float) -> bool:
        return any(loaded.engine.is_stalled(after_s) for loaded in self._all_loaded())

    async def drain(self, timeout_s: float) -> None:
        self._is_ending = True
        if self._ending is not None and not self._ending.done():
            self._ending.set_result(None)
        await asyncio.gather(*(each.engine.drain(timeout_s) for each in self._all_loaded()))

    def stop(self, timeout_s: float = 10.0) -> None:
        for loaded in self._all_loaded():
            loaded.engine.stop(timeout_s)

    async def probe(self) -> None:
        """Try again what has failed."""
        failed = [loaded.service for loaded in self._required() if loaded.engine.has_failed]
        await asyncio.gather(*map(probe, failed))

    def _all_loaded(self) -> list[Loaded]:
        return [model.loaded for model in self._hosted.values() if model.loaded is not None]

    def _required(self) -> list[Loaded]:
        return [
            model.loaded
            for model in self._hosted.values()
            if model.loaded is not None and model.options.is_required
        ]


def open_models(options: Sequence[ModelOptions], hasher: FileHasher) -> list[Hosted]:
    """Open every model directory: what is wrong with one is found at the start."""
    models = [Hosted(each, find_model(each, hasher)) for each in options]
    names = [model.name for model in models]
    for name in names:
        if names.count(name) > 1:
            raise SettingsError(
                f"Two models are called {name}. Name them: --model NAME=DIR, or a table "
                "[models.NAME] each in the file of --models."
            )
    return models


def check_fit(name: str, plan: LoadPlan, others: Sequence[LoadPlan]) -> None:
    """Refuse, with numbers, a model that has no room beside the others."""
    free, needed = plan.free_bytes, plan.least_bytes
    if free is None or needed <= free:
        return
    beside = ", ".join(
        f"{other.model.name} ({_gigabytes(other.needed_bytes)})"
        for other in others
        if other.device == plan.device
    )
    options = plan.options
    raise ModelDoesNotFit(
        f"The model {name} needs {_gigabytes(needed)}, {_gigabytes(plan.demand.weight_bytes)} of it"
        f" for weights; {_gigabytes(free)} are free{f' beside {beside}' if beside else ''}.",
        f"Serve fewer models, lower {options.named('kv_cache_tokens')} or the"
        f" {options.named('cache_share')} of the others, or set their"
        f" {options.named('idle_unload_s')}.",
    )


def _gigabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:.2f} GB"


def _listed(model: Hosted, status: str | None = None, reason: str = "") -> ListedModel:
    if status is None:
        is_first = model.options.is_loaded_at_start
        status, reason = ("loading", LOADING) if is_first else ("unloaded", UNLOADED)
    return ListedModel(
        name=model.name,
        status=status,  # type: ignore[arg-type]
        is_required=model.options.is_required,
        served=None if model.loaded is None else model.loaded.served,
        reason=reason,
    )


def _is_loaded_on_use(model: Hosted) -> bool:
    """What should have been there from the start and never was is not tried again; what was
    unloaded is, as often as it takes."""
    return model.was_loaded or not model.options.is_loaded_at_start


def _is_busy(engine: Engine) -> bool:
    return engine.num_running + engine.num_waiting > 0


def _forget_load(model: Hosted, task: asyncio.Task[None]) -> None:
    model.loading = None
    if not task.cancelled():
        task.exception()  # all who waited may have left


async def _stop(loaded: Loaded) -> None:
    await loaded.engine.drain(0.0)
    await asyncio.to_thread(loaded.engine.stop)
