"""Constructs everything but the runner: settings in, a running server out."""

from __future__ import annotations

import gc
import logging
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from appliance import __version__
from appliance.api.http.state import ApplianceState
from appliance.completion import CompletionRequest, CompletionService, ListedModel, Served
from appliance.completion.service import SamplingDefaults, TextModel
from appliance.console.banner import Running, banner
from appliance.console.terminal import Terminal
from appliance.engine.engine import Engine
from appliance.engine.runners import sizing
from appliance.errors import EngineFailure, StartupError
from appliance.logs import configure_logging
from appliance.machine import process_age_s, wait_passively
from appliance.metrics import Metrics
from appliance.models.directory import ModelDirectory, embedded_model_path, open_model
from appliance.models.hashing import FileHasher
from appliance.models.identity import Identity, hash_model, identify
from appliance.models.plan import build_demand, build_runner, choose_place
from appliance.models.table import LOADING, ModelTable
from appliance.serve.app import create_app
from appliance.serve.lifecycle import Answering, ApplianceServer, Timing, in_daemon_thread, listen
from appliance.text.chat_template import ChatTemplate
from appliance.text.grammar import GrammarCompiler
from appliance.text.tokenizer import Tokenizer
from appliance.text.tool_calls import detect_tool_format

if TYPE_CHECKING:
    from appliance.console.ink import Ink
    from appliance.engine.runner import RunnerInfo
    from appliance.settings import Settings

logger = logging.getLogger(__name__)

EMBEDDED_MODEL_NAME = "pebble"


def serve(settings: Settings, ink: Ink) -> int:
    """Run the server until it is told to stop; returns the exit code."""
    configure_logging(settings.log_level)
    wait_passively()
    terminal = Terminal(sys.stderr)
    hasher = FileHasher(settings.cache_dir, terminal.show_hashing)
    with terminal.counting("checking the model"):
        model = find_model(settings, hasher)
    logger.debug("model opened", extra={"model": model.name})
    with listen(settings.host, settings.port) as listener:
        face = Face(terminal, ink, port=listener.getsockname()[1])
        server = build_server(settings, model, hasher, face)
        server.run(sockets=[listener])
    return server.exit_code


@dataclass(frozen=True, slots=True)
class Face:
    """What the person who started the server sees: where, how, and the port to name."""

    terminal: Terminal
    ink: Ink
    port: int


def find_model(settings: Settings, hasher: FileHasher) -> ModelDirectory:
    """The model directory of the settings, or the one that ships inside."""
    if settings.model_path is None:
        name = settings.model_name or EMBEDDED_MODEL_NAME
        return open_model(embedded_model_path(), name=name, hasher=hasher)
    return open_model(settings.model_path, name=settings.model_name, hasher=hasher)


def build_server(
    settings: Settings, model: ModelDirectory, hasher: FileHasher, face: Face
) -> ApplianceServer:
    metrics = Metrics()
    models = ModelTable(ListedModel(name=model.name, status="loading", reason=LOADING))
    state = ApplianceState(
        metrics=metrics,
        models=models,
        max_body_bytes=settings.max_body_bytes,
        bound_host=settings.host,
        allowed_hosts=settings.allowed_hosts,
        generation=settings.generation,
        ping_interval_s=settings.ping_interval_s or None,
    )

    async def load() -> Answering:
        with face.terminal.loading(model.name):
            loaded = await in_daemon_thread(lambda: load_model(settings, model, hasher, metrics))
            await try_out(loaded.service)
        served = Served(
            completions=loaded.service,
            embedder=loaded.service,
            identity=loaded.identity,
            max_context_tokens=loaded.max_context_tokens,
            max_choices=settings.max_sequences + settings.max_queued,
        )
        models.put(ListedModel(name=model.name, status="ready", served=served))
        state.become_ready()
        report(metrics, loaded)
        gc.freeze()  # what is loaded stays: no collection walks it again while answers stream
        if state.status == "ready":  # and not draining
            facts = running_facts(settings, loaded, face.port)
            face.terminal.write(banner(facts, face.ink) + "\n")
            extra = {"model": model.name, "fingerprint": loaded.identity.fingerprint}
            logger.info("ready", extra=extra)
        return Answering(engine=loaded.engine, probe=lambda: probe(loaded.service))

    timing = Timing(delay_s=settings.drain_delay_s, timeout_s=settings.drain_timeout_s)
    return ApplianceServer(create_app(state), state, load, timing, face.terminal.write)


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What answers requests."""

    engine: Engine
    service: CompletionService
    identity: Identity
    runner: RunnerInfo
    size: sizing.Size
    max_context_tokens: int
    note: str | None  # why the engine is not the expected one


def load_model(
    settings: Settings, model: ModelDirectory, hasher: FileHasher, metrics: Metrics
) -> Loaded:
    """Everything slow about a start; runs in a thread while /health already answers."""
    place = choose_place(settings, model)
    demand = build_demand(settings, model, place)
    size = sizing.fit(demand, place.free_bytes)
    if size.wanted_tokens is not None:
        extra = {"max_context_tokens": size.context_tokens, "wanted": size.wanted_tokens}
        logger.warning("context reduced to fit the memory", extra=extra)
    with sizing.refused_without_memory():
        weights_id = hash_model(model, hasher).weights
        runner = build_runner(settings, model, place, demand, size, weights_id)
    info = runner.info
    logger.debug("weights loaded", extra={"runner": info.name, "dtype": info.dtype})
    if info.note is not None:
        logger.warning("the runner falls short", extra={"why": info.note})
    engine = Engine(
        runner,
        max_batch_tokens=settings.max_batch_tokens,
        max_sequences=settings.max_sequences,
        max_queued=settings.max_queued,
        queue_timeout_s=settings.queue_timeout_s,
        shares_prefixes=settings.prefix_cache == "on",
        speculates=settings.speculation == "on",
        observer=metrics,
    )
    text = build_text_model(model, info, min(size.context_tokens, engine.max_context_tokens))
    identity = identify(model, info, hasher, settings.generation)
    logger.debug("identity known", extra={"fingerprint": identity.fingerprint})
    engine.start()
    return Loaded(
        engine=engine,
        service=CompletionService(engine, text),
        identity=identity,
        runner=info,
        size=size,
        max_context_tokens=text.max_context_tokens,
        note=place.note or info.note,
    )


def report(metrics: Metrics, loaded: Loaded) -> None:
    identity = loaded.identity
    labels = {"model": identity.model, "version": __version__, "generation": identity.generation}
    metrics.describe_build({**labels, **identity.short()})
    metrics.watch_engine(loaded.engine)


def build_text_model(model: ModelDirectory, info: RunnerInfo, context: int) -> TextModel:
    tokenizer = Tokenizer.from_file(model.files["tokenizer"])
    template = ChatTemplate(
        model.chat_template, model.special_tokens, added_tokens=tokenizer.added_tokens
    )
    given = asdict(model.generation_defaults)
    return TextModel(
        tokenizer=tokenizer,
        template=template,
        grammars=GrammarCompiler(tokenizer, sorted(model.eos_token_ids)),
        tool_format=detect_tool_format(model.chat_template),
        bos_token_id=model.bos_token_id if model.add_bos_token else None,
        stop_token_ids=model.eos_token_ids,
        vocab_size=info.vocab_size,
        max_context_tokens=context,
        defaults=SamplingDefaults(
            **{name: value for name, value in given.items() if value is not None}
        ),
    )


async def probe(service: CompletionService) -> None:
    """A short completion: ready means that a token was computed, recovered too."""
    await service.complete(
        CompletionRequest(request_id="warm-up", prompt="Hello", max_new_tokens=2, temperature=0.0)
    )


async def try_out(service: CompletionService) -> None:
    """The first probe, of a model that may be broken."""
    try:
        await probe(service)
    except EngineFailure as error:
        raise StartupError(
            "The model was loaded, but its first token could not be computed; the log says why. "
            "If its logits are not finite, its weights are damaged: fetch or quantize it again."
        ) from error


def running_facts(settings: Settings, loaded: Loaded, port: int) -> Running:
    identity, runner, size = loaded.identity, loaded.runner, loaded.size
    return Running(
        version=__version__,
        host=settings.host,
        port=port,
        model=identity.model,
        num_parameters=runner.num_parameters,
        weight_bytes=runner.weight_bytes,
        dtype=runner.dtype,
        device=runner.device,
        runner=runner.name,
        note=loaded.note,
        threads=runner.num_threads,
        generation=identity.generation,
        hashes={name: digest for name, digest in identity.short().items() if digest},
        start_time_s=process_age_s(),
        max_context_tokens=loaded.max_context_tokens,
        wanted_context_tokens=size.wanted_tokens,
    )
