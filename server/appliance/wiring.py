"""The only file that constructs concrete classes: settings in, a running server out."""

from __future__ import annotations

import logging
import sys
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from appliance import __version__
from appliance.api.app import create_app
from appliance.api.state import ApplianceState
from appliance.completion import CompletionRequest, CompletionService
from appliance.completion.service import SamplingDefaults, TextModel
from appliance.console.banner import Running, banner
from appliance.console.terminal import Terminal
from appliance.engine import sizing
from appliance.engine.engine import Engine
from appliance.engine.model.dtype import choose_dtype
from appliance.errors import ModelRefused, SettingsError
from appliance.file_hashes import FileHasher
from appliance.identity import Identity, RunnerFacts, identify
from appliance.lifecycle import Answering, ApplianceServer, Timing, in_daemon_thread, listen
from appliance.logs import configure_logging
from appliance.machine import available_cores, available_memory_bytes, wait_passively
from appliance.metrics import Metrics
from appliance.model_store import ModelDirectory, embedded_model_path, open_model
from appliance.text.chat_template import ChatTemplate
from appliance.text.grammar import GrammarCompiler
from appliance.text.tokenizer import Tokenizer
from appliance.text.tool_calls import detect_tool_format

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from appliance.console.ink import Ink
    from appliance.engine.model.config import ModelConfig
    from appliance.engine.model.tensor_file import TensorLocation
    from appliance.engine.runner import Runner, RunnerInfo
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
    state = ApplianceState(
        metrics=metrics,
        max_body_bytes=settings.max_body_bytes,
        bound_host=settings.host,
        allowed_hosts=settings.allowed_hosts,
        generation=settings.generation,
        max_choices=settings.max_sequences + settings.max_queued,
    )

    async def load() -> Answering:
        started_at_s = time.monotonic()
        with face.terminal.loading(model.name):
            loaded = await in_daemon_thread(lambda: load_model(settings, model, hasher, metrics))
            await probe(loaded.service)
        state.become_ready(
            loaded.service, loaded.identity, max_context_tokens=loaded.max_context_tokens
        )
        report(metrics, loaded)
        if state.status == "ready":  # and not draining
            facts = running_facts(settings, loaded, face.port, time.monotonic() - started_at_s)
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


def load_model(
    settings: Settings, model: ModelDirectory, hasher: FileHasher, metrics: Metrics
) -> Loaded:
    """Everything slow about a start; runs in a thread while /health already answers."""
    place = choose_place(settings, model)
    demand = build_demand(settings, model, place.dtype)
    size = sizing.fit(demand, place.free_bytes)
    if size.wanted_tokens is not None:
        extra = {"max_context_tokens": size.context_tokens, "wanted": size.wanted_tokens}
        logger.warning("context reduced to fit the memory", extra=extra)
    with sizing.refused_without_memory():
        runner = build_runner(settings, model, place, demand, size)
    info = runner.info
    logger.debug("weights loaded", extra={"runner": info.name, "dtype": info.dtype})
    engine = Engine(
        runner,
        max_batch_tokens=settings.max_batch_tokens,
        max_sequences=settings.max_sequences,
        max_queued=settings.max_queued,
        queue_timeout_s=settings.queue_timeout_s,
        observer=metrics,
    )
    text = build_text_model(model, info, min(size.context_tokens, engine.max_context_tokens))
    facts = RunnerFacts(
        engine=info.name,
        dtype=info.dtype,
        device=info.device,
        num_threads=info.num_threads,
        generation=settings.generation,
    )
    identity = identify(model, facts, hasher)
    logger.debug("identity known", extra={"fingerprint": identity.fingerprint})
    engine.start()
    return Loaded(
        engine=engine,
        service=CompletionService(engine, text),
        identity=identity,
        runner=info,
        size=size,
        max_context_tokens=text.max_context_tokens,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a runner computes, and in what."""

    device: str
    dtype: str
    num_threads: int
    free_bytes: int | None


def choose_place(settings: Settings, model: ModelDirectory) -> Place:
    """The settings' place, or the best there is; for the native engine torch is not asked."""
    num_threads = sizing.choose_threads(settings.threads, available_cores())
    if settings.engine == "native":
        refuse_for_native(settings, model)
        device, dtype, memory = "cpu", "bfloat16", None
    else:
        memory = cuda_memory_bytes() if settings.device != "cpu" else None
        device = sizing.choose_device(settings.device, has_cuda=memory is not None)
        dtype = choose_dtype(settings.dtype, model.dtype, device)
    return Place(
        device=device,
        dtype=dtype,
        num_threads=num_threads,
        free_bytes=available_memory_bytes() if device == "cpu" else memory,
    )


def refuse_for_native(settings: Settings, model: ModelDirectory) -> None:
    if model.native is None:
        raise ModelRefused(
            f"The native engine does not know models of type {model.model_type}. "
            "Leave --engine at auto, or use --engine transformers."
        )
    if settings.device == "cuda":
        raise SettingsError(
            "--device is cuda and --engine is native, which computes on CPUs alone. "
            "Use --engine torch, or --device cpu."
        )
    if settings.dtype == "float32":
        raise SettingsError(
            "--dtype is float32 and --engine is native, which computes in bfloat16 alone. "
            "Use --engine torch, or --dtype bfloat16."
        )


def cuda_memory_bytes() -> int | None:
    """What is free on the first CUDA device; None without one."""
    import torch

    return torch.cuda.mem_get_info("cuda:0")[0] if torch.cuda.is_available() else None


def build_demand(settings: Settings, model: ModelDirectory, dtype: str) -> sizing.Demand:
    native = model.native
    return sizing.Demand(
        model_context_tokens=model.max_context_tokens,
        max_context_tokens=settings.max_context_tokens,
        max_sequences=settings.max_sequences,
        kv_cache_tokens=settings.kv_cache_tokens,
        num_cache_values=native.num_cache_values_per_token
        if native is not None
        else sizing.estimate_cache_values(model.config),
        num_parameters=model.num_parameters,
        dtype=dtype,
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


def build_runner(
    settings: Settings,
    model: ModelDirectory,
    place: Place,
    demand: sizing.Demand,
    size: sizing.Size,
) -> Runner:
    """The fastest runner that knows the model, or the one the settings name."""
    if settings.engine == "torch" and model.native is None:
        raise ModelRefused(
            f"The torch engine does not know models of type {model.model_type}. "
            "Leave --engine at auto, or use --engine transformers."
        )
    if model.native is not None and settings.engine == "native":
        sizing.check_room(demand, place.free_bytes)
        return build_native_runner(model.native, model.tensors, settings.cache_dir, place, size)
    if model.native is not None and settings.engine != "transformers":
        from appliance.engine.torch_runner import TorchRunner

        sizing.check_room(demand, place.free_bytes)
        return TorchRunner(
            model.native,
            model.tensors,
            device=place.device,
            dtype=place.dtype,
            block_size=sizing.BLOCK_SIZE,
            num_blocks=size.num_blocks,
            num_threads=place.num_threads,
        )
    from appliance.engine.transformers_runner import TransformersRunner, is_known_to_transformers

    if not is_known_to_transformers(model.model_type):
        raise ModelRefused(
            f"Models of type {model.model_type} are not among those that this release can run: the "
            "Llama family, Mistral, Qwen 2 and 3, and every causal model that transformers knows."
        )
    return TransformersRunner(
        model.path,
        device=place.device,
        dtype=place.dtype,
        block_size=sizing.BLOCK_SIZE,
        num_blocks=size.num_blocks,
        num_threads=place.num_threads,
    )


def build_native_runner(
    config: ModelConfig,
    tensors: Mapping[str, TensorLocation],
    cache_dir: Path | None,
    place: Place,
    size: sizing.Size,
) -> Runner:
    """Without a cache directory the kernels are compiled, and the weights packed, at each start."""
    from appliance.engine.kernels.build import load_library
    from appliance.engine.native_runner import NativeRunner

    library, reason = load_library(cache_dir)
    if library is None:
        raise SettingsError(
            f"--engine is native and {reason.rstrip('.')}. "
            "Install gcc or clang, or use --engine torch."
        )
    logger.debug("kernels loaded", extra={"how": reason, "variant": library.variant})
    return NativeRunner(
        library,
        config,
        tensors,
        block_size=sizing.BLOCK_SIZE,
        num_blocks=size.num_blocks,
        num_threads=place.num_threads,
        cache_dir=cache_dir,
    )


async def probe(service: CompletionService) -> None:
    """A short completion: ready means that a token was computed, recovered too."""
    await service.complete(
        CompletionRequest(request_id="warm-up", prompt="Hello", max_new_tokens=2, temperature=0.0)
    )


def running_facts(settings: Settings, loaded: Loaded, port: int, load_time_s: float) -> Running:
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
        threads=runner.num_threads,
        generation=identity.generation,
        hashes={name: digest for name, digest in identity.short().items() if digest},
        load_time_s=load_time_s,
        max_context_tokens=loaded.max_context_tokens,
        wanted_context_tokens=size.wanted_tokens,
    )
