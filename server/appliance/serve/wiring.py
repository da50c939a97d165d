"""Constructs the server from a configuration, and runs it."""

from __future__ import annotations

import gc
import logging
import sys
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from appliance import __version__
from appliance.api.http.state import ApplianceState
from appliance.console.banner import Running, RunningModel, banner
from appliance.console.terminal import Terminal
from appliance.logs import configure_logging
from appliance.machine import process_age_s, wait_passively
from appliance.metrics import Metrics
from appliance.models.hashing import FileHasher
from appliance.models.host import Hosted, ModelHost, Surroundings, open_models
from appliance.models.machine import ThisMachine
from appliance.serve.access import Access, open_access
from appliance.serve.app import create_app
from appliance.serve.lifecycle import (
    Answering,
    ApplianceServer,
    Beside,
    Timing,
    in_daemon_thread,
    listen,
)
from appliance.serve.metrics_port import serve_metrics

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from appliance.console.ink import Ink
    from appliance.models.options import Configuration
    from appliance.settings import Settings

logger = logging.getLogger(__name__)


def serve(configuration: Configuration, ink: Ink) -> int:
    """Run the server until a signal ends it; return the exit code."""
    settings = configuration.settings
    configure_logging(settings.log_level)
    wait_passively()
    terminal = Terminal(sys.stderr)
    hasher = FileHasher(settings.cache_dir, terminal.show_hashing)
    is_one = len(configuration.models) == 1
    with terminal.counting("checking the model" if is_one else "checking the models"):
        models = open_models(configuration.models, hasher)
    logger.debug("models opened", extra={"models": [model.name for model in models]})
    with listen(settings.host, settings.port) as listener:
        access = open_access(settings)
        screen = Screen(terminal, ink, port=listener.getsockname()[1])
        server = build_server(settings, models, hasher, screen, access)
        try:
            server.run(sockets=[listener])
        finally:
            access.close()
    return server.exit_code


@dataclass(frozen=True, slots=True)
class Screen:
    """Where the server writes for the person who started it, and the port to show."""

    terminal: Terminal
    ink: Ink
    port: int


def build_server(
    settings: Settings, models: list[Hosted], hasher: FileHasher, screen: Screen, access: Access
) -> ApplianceServer:
    metrics = Metrics()
    surroundings = Surroundings(
        machine=ThisMachine(settings.cache_dir),
        hasher=hasher,
        metrics=metrics,
        run_in_thread=in_daemon_thread,
        generation=settings.generation,
    )
    host = ModelHost(models, surroundings)
    state = ApplianceState(
        metrics=metrics,
        models=host,
        max_body_bytes=settings.max_body_bytes,
        bound_host=settings.host,
        allowed_hosts=settings.allowed_hosts,
        generation=settings.generation,
        ping_interval_s=settings.ping_interval_s or None,
        gate=access.gate,
        cors_origins=settings.cors_origins,
    )
    if access.audit is not None:
        metrics.watch_audit(access.audit)

    async def load() -> Answering:
        with screen.terminal.loading(", ".join(model.name for model in models)):
            await host.load_required()
        state.become_ready()
        gc.freeze()  # loaded objects stay: no collection has to walk them while answers stream
        if state.status == "ready":  # and not draining
            screen.terminal.write(banner(running_facts(settings, host, screen.port), screen.ink))
            screen.terminal.write("\n")
            logger.info("ready", extra=ready_fields(host))
        return Answering(engine=host, probe=host.probe, then=host.stay)

    timing = Timing(delay_s=settings.drain_delay_s, timeout_s=settings.drain_timeout_s)
    beside = run_beside(settings, access, metrics)
    return ApplianceServer(create_app(state), state, load, timing, screen.terminal.write, beside)


def run_beside(settings: Settings, access: Access, metrics: Metrics) -> Beside:
    """Return what goes on beside the answers."""
    background: list[Callable[[], Coroutine[None, None, None]]] = [access.watch]
    if settings.metrics_port is not None:
        listener = listen(settings.host, settings.metrics_port)
        background.append(partial(serve_metrics, metrics, listener))
    return Beside(tls=access.tls, background=background)


def ready_fields(host: ModelHost) -> dict[str, object]:
    """Return the fields of the log event about the models that answer."""
    found = [model.loaded.identity for model in host.models if model.loaded is not None]
    if len(found) == 1:
        return {"model": found[0].model, "fingerprint": found[0].fingerprint}
    return {"models": {identity.model: identity.fingerprint for identity in found}}


def running_facts(settings: Settings, host: ModelHost, port: int) -> Running:
    return Running(
        version=__version__,
        host=settings.host,
        port=port,
        models=tuple(running_model(model) for model in host.models),
        generation=settings.generation,
        start_time_s=process_age_s(),
        is_secure=settings.tls_certificate is not None,
        wants_key=any((settings.keys, settings.jwt, settings.token_review)),
    )


def running_model(model: Hosted) -> RunningModel:
    loaded = model.loaded
    if loaded is None:
        when = "loading" if model.options.is_loaded_at_start else "loaded at its first use"
        return RunningModel(name=model.name, note=when)
    runner, size = loaded.runner, loaded.plan.size
    return RunningModel(
        name=model.name,
        num_parameters=runner.num_parameters,
        weight_bytes=runner.weight_bytes,
        dtype=runner.dtype,
        device=runner.device,
        runner=runner.name,
        threads=runner.num_threads,
        note=loaded.note,
        hashes={name: digest for name, digest in loaded.identity.short().items() if digest},
        max_context_tokens=loaded.max_context_tokens,
        wanted_context_tokens=size.wanted_tokens,
    )
