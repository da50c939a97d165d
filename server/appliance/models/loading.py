"""Loads one model: from its directory and options to an engine and a service that answer."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from appliance.completion import CompletionRequest, CompletionService, Served
from appliance.completion.service import SamplingDefaults, TextModel
from appliance.engine.engine import Engine
from appliance.errors import EngineFailure, StartupError
from appliance.models.directory import embedded_model_path, open_model
from appliance.models.identity import Identity, hash_model, identify
from appliance.text.chat_template import ChatTemplate
from appliance.text.grammar import GrammarCompiler
from appliance.text.tokenizer import Tokenizer
from appliance.text.tool_calls import detect_tool_format

if TYPE_CHECKING:
    from appliance.engine.observer import EngineObserver
    from appliance.engine.runner import RunnerInfo
    from appliance.models.directory import ModelDirectory
    from appliance.models.hashing import FileHasher
    from appliance.models.options import ModelOptions
    from appliance.models.plan import LoadPlan

logger = logging.getLogger(__name__)

EMBEDDED_MODEL_NAME = "pebble"


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A model in memory, its engine running."""

    plan: LoadPlan
    engine: Engine
    service: CompletionService
    identity: Identity
    runner: RunnerInfo
    max_context_tokens: int

    @property
    def served(self) -> Served:
        options = self.plan.options
        return Served(
            completions=self.service,
            embedder=self.service,
            identity=self.identity,
            max_context_tokens=self.max_context_tokens,
            max_choices=options.max_sequences + options.max_queued,
        )

    @property
    def note(self) -> str | None:
        """Why the runner is not the expected one."""
        return self.plan.note or self.runner.note


def find_model(options: ModelOptions, hasher: FileHasher) -> ModelDirectory:
    """Open the model directory of the options, or the one that ships inside."""
    if options.model_path is None:
        name = options.model_name or EMBEDDED_MODEL_NAME
        return open_model(embedded_model_path(), name=name, hasher=hasher)
    return open_model(options.model_path, name=options.model_name, hasher=hasher)


def load_model(
    plan: LoadPlan, hasher: FileHasher, observer: EngineObserver, generation: str | None = None
) -> Loaded:
    """Do everything slow; runs in a thread while the process answers already."""
    options, model, size = plan.options, plan.model, plan.size
    if size.wanted_tokens is not None:
        extra = {"max_context_tokens": size.context_tokens, "wanted": size.wanted_tokens}
        logger.warning("context reduced to fit the memory", extra=extra)
    runner = plan.load(hash_model(model, hasher).weights)
    info = runner.info
    logger.debug("weights loaded", extra={"runner": info.name, "dtype": info.dtype})
    if info.note is not None:
        logger.warning("the runner falls short", extra={"why": info.note})
    engine = Engine(
        runner,
        max_batch_tokens=options.max_batch_tokens,
        max_sequences=options.max_sequences,
        max_queued=options.max_queued,
        queue_timeout_s=options.queue_timeout_s,
        shares_prefixes=options.prefix_cache == "on",
        speculates=options.speculation == "on",
        observer=observer,
    )
    text = build_text_model(model, info, min(size.context_tokens, engine.max_context_tokens))
    identity = identify(model, info, hasher, generation)
    logger.debug("identity known", extra={"fingerprint": identity.fingerprint})
    engine.start()
    return Loaded(
        plan=plan,
        engine=engine,
        service=CompletionService(engine, text),
        identity=identity,
        runner=info,
        max_context_tokens=text.max_context_tokens,
    )


def build_text_model(model: ModelDirectory, info: RunnerInfo, context: int) -> TextModel:
    tokenizer = Tokenizer.from_file(model.files["tokenizer"])
    template = ChatTemplate(
        model.chat_template, model.special_tokens, added_tokens=tokenizer.added_tokens
    )
    defaults = asdict(model.generation_defaults)
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
            **{name: value for name, value in defaults.items() if value is not None}
        ),
    )


async def probe(service: CompletionService) -> None:
    """Compute a short completion: ready means that a token was computed, recovered too."""
    await service.complete(
        CompletionRequest(request_id="warm-up", prompt="Hello", max_new_tokens=2, temperature=0.0)
    )


async def try_out(service: CompletionService) -> None:
    """Probe a model for the first time: it may be broken."""
    try:
        await probe(service)
    except EngineFailure as error:
        raise StartupError(
            "The model was loaded, but its first token could not be computed; the log says why. "
            "If its logits are not finite, its weights are damaged: fetch or quantize it again."
        ) from error
