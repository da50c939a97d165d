"""The only file that constructs concrete classes: settings in, a running server out."""

from __future__ import annotations

import asyncio
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
from appliance.console.banner import Running, banner, loading
from appliance.console.ink import Ink
from appliance.engine.engine import Engine
from appliance.engine.model.dtype import choose_dtype
from appliance.errors import ModelRefused, SettingsError
from appliance.file_hashes import FileHasher
from appliance.identity import Identity, RunnerFacts, identify
from appliance.lifecycle import ApplianceServer, Timing, listen
from appliance.logs import configure_logging
from appliance.machine import available_cores, available_memory_bytes, wait_passively
from appliance.metrics import Metrics
from appliance.model_store import ModelDirectory, embedded_model_path, open_model
from appliance.text.chat_template import ChatTemplate
from appliance.text.grammar import GrammarCompiler
from appliance.text.tokenizer import Tokenizer
from appliance.text.tool_calls import detect_tool_format

if TYPE_CHECKING:
    from appliance.engine.runner import Runner, RunnerInfo
    from appliance.settings import Settings

logger = logging.getLogger(__name__)

EMBEDDED_MODEL_NAME = "pebble"
BLOCK_SIZE = 16
DEFAULT_CONTEXT_TOKENS = 2048  # for a model that names no limit
ELEMENT_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
CACHE_SHARE_OF_MEMORY = 0.25
STALLED_AFTER_S = 120.0


def serve(settings: Settings, ink: Ink) -> int:
    """Run the server until it is told to stop; returns the exit code."""
    configure_logging(settings.log_level)
    wait_passively()
    hasher = FileHasher(settings.cache_dir)
    model = find_model(settings, hasher)
    logger.debug("model opened", extra={"model": model.name})
    with listen(settings.host, settings.port) as listener:
        server = build_server(settings, model, hasher, ink, port=listener.getsockname()[1])
        server.run(sockets=[listener])
    return server.exit_code


def find_model(settings: Settings, hasher: FileHasher) -> ModelDirectory:
    """The model directory of the settings, or the one that ships inside."""
    if settings.model_path is None:
        name = settings.model_name or EMBEDDED_MODEL_NAME
        return open_model(embedded_model_path(), name=name, hasher=hasher)
    return open_model(settings.model_path, name=settings.model_name, hasher=hasher)


def build_server(
    settings: Settings, model: ModelDirectory, hasher: FileHasher, ink: Ink, *, port: int
) -> ApplianceServer:
    metrics = Metrics()
    state = ApplianceState(
        metrics=metrics,
        max_body_bytes=settings.max_body_bytes,
        bound_host=settings.host,
        allowed_hosts=settings.allowed_hosts,
        generation=settings.generation,
    )

    async def load() -> Engine:
        started_at_s = time.monotonic()
        with loading(model.name, sys.stderr):
            loaded = await asyncio.to_thread(load_model, settings, model, hasher, metrics)
            await warm_up(loaded.service)
        state.is_stalled = lambda: loaded.engine.is_stalled(STALLED_AFTER_S)
        state.become_ready(
            loaded.service, loaded.identity, max_context_tokens=loaded.max_context_tokens
        )
        report(metrics, loaded)
        facts = running_facts(settings, loaded, port, time.monotonic() - started_at_s)
        print(banner(facts, ink), file=sys.stderr, flush=True)
        logger.info(
            "ready", extra={"model": model.name, "fingerprint": loaded.identity.fingerprint}
        )
        return loaded.engine

    timing = Timing(delay_s=settings.drain_delay_s, timeout_s=settings.drain_timeout_s)
    return ApplianceServer(create_app(state), state, load, timing)


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What answers requests."""

    engine: Engine
    service: CompletionService
    identity: Identity
    runner: RunnerInfo
    max_context_tokens: int


def load_model(
    settings: Settings, model: ModelDirectory, hasher: FileHasher, metrics: Metrics
) -> Loaded:
    """Everything slow about a start; runs in a thread while /health already answers."""
    context = context_tokens(settings, model)
    runner = build_runner(settings, model, context)
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
    text = build_text_model(model, info, min(context, engine.max_context_tokens))
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
        service=CompletionService(engine, text, metrics),
        identity=identity,
        runner=info,
        max_context_tokens=text.max_context_tokens,
    )


def report(metrics: Metrics, loaded: Loaded) -> None:
    identity = loaded.identity
    labels = {"model": identity.model, "version": __version__, "generation": identity.generation}
    metrics.describe_build({**labels, **identity.short()})
    metrics.watch_engine(loaded.engine)


def context_tokens(settings: Settings, model: ModelDirectory) -> int:
    """Tokens of one request at most: the model's limit, or a smaller one from the settings."""
    limit = model.max_context_tokens or DEFAULT_CONTEXT_TOKENS
    return min(settings.max_context_tokens or limit, limit)


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


def build_runner(settings: Settings, model: ModelDirectory, context: int) -> Runner:
    """The fastest runner that knows the model, or the one the settings name."""
    device = choose_device(settings.device)
    dtype = choose_dtype(settings.dtype, model.dtype, device)
    num_threads = settings.threads or available_cores()
    memory = free_memory_bytes(device)
    tokens = settings.kv_cache_tokens or fit_cache(settings, model, dtype, context, memory)
    num_blocks = -(-tokens // BLOCK_SIZE)
    if settings.engine == "torch" and model.native is None:
        raise ModelRefused(
            f"The torch engine does not know models of type {model.model_type}. "
            "Leave --engine at auto, or use --engine transformers."
        )
    if model.native is not None and settings.engine != "transformers":
        from appliance.engine.torch_runner import TorchRunner

        return TorchRunner(
            model.native,
            model.tensors,
            device=device,
            dtype=dtype,
            block_size=BLOCK_SIZE,
            num_blocks=num_blocks,
            num_threads=num_threads,
        )
    from appliance.engine.transformers_runner import TransformersRunner, is_known_to_transformers

    if not is_known_to_transformers(model.model_type):
        raise ModelRefused(
            f"Models of type {model.model_type} are not among those that this release can run: the "
            "Llama family, Mistral, Qwen 2 and 3, and every causal model that transformers knows."
        )
    return TransformersRunner(
        model.path,
        device=device,
        dtype=dtype,
        block_size=BLOCK_SIZE,
        num_blocks=num_blocks,
        num_threads=num_threads,
    )


def choose_device(wanted: str) -> str:
    if wanted == "cpu":
        return "cpu"
    import torch

    if torch.cuda.is_available():
        return "cuda:0"
    if wanted == "cuda":
        raise SettingsError(
            "--device is cuda and torch finds no CUDA device. Install the CUDA lock with "
            "make serve GPU=1 and check the driver with nvidia-smi, or use --device cpu."
        )
    return "cpu"


def free_memory_bytes(device: str) -> int | None:
    """What is free where the model will be: the machine's memory or the device's."""
    if device == "cpu":
        return available_memory_bytes()
    import torch

    free_bytes, _ = torch.cuda.mem_get_info(device)
    return free_bytes


def fit_cache(
    settings: Settings, model: ModelDirectory, dtype: str, context: int, memory: int | None
) -> int:
    """Tokens the key-value cache should hold: all contexts, if a share of memory allows."""
    wanted = context * settings.max_sequences
    if memory is None or model.native is None:
        return wanted
    bytes_per_token = model.native.num_cache_values_per_token * ELEMENT_BYTES[dtype]
    room = max(memory - model.weight_bytes, 0) * CACHE_SHARE_OF_MEMORY
    return max(min(wanted, int(room) // bytes_per_token), context)


async def warm_up(service: CompletionService) -> None:
    """Ready means that a token was computed."""
    await service.complete(
        CompletionRequest(request_id="warm-up", prompt="Hello", max_new_tokens=2, temperature=0.0)
    )


def running_facts(settings: Settings, loaded: Loaded, port: int, load_time_s: float) -> Running:
    identity, runner = loaded.identity, loaded.runner
    return Running(
        version=__version__,
        host=settings.host,
        port=port,
        model=identity.model,
        num_parameters=runner.num_parameters,
        dtype=runner.dtype,
        device=runner.device,
        runner=runner.name,
        threads=runner.num_threads,
        generation=identity.generation,
        hashes={name: digest for name, digest in identity.short().items() if digest},
        load_time_s=load_time_s,
    )
