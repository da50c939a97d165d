"""Runs any causal language model that transformers knows, one chunk at a time."""

from __future__ import annotations

import inspect
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from appliance.engine.runner import RunnerInfo
from appliance.engine.runners.sizing import DEFAULT_CONTEXT_TOKENS
from appliance.engine.sampler import relative_probabilities
from appliance.engine.sequence import (
    Batch,
    Chunk,
    ChunkOutput,
    DoubleArray,
    FloatArray,
    LogitRows,
)
from appliance.engine.torch.cuda import describe_device
from appliance.errors import ModelRefused

# Read when huggingface_hub is first imported, next line: nothing is looked up on the network.
os.environ["HF_HUB_OFFLINE"] = "1"

from huggingface_hub.errors import StrictDataclassError
from transformers import AutoModelForCausalLM, DynamicCache
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
)
from transformers.utils import logging

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import Cache, PretrainedConfig, PreTrainedModel

# What transformers raises on the many ways in which a config.json can be wrong.
LOADING_ERRORS = (
    ArithmeticError,
    AttributeError,
    LookupError,
    OSError,
    RuntimeError,
    StrictDataclassError,
    TypeError,
    ValueError,
)


def is_known_to_transformers(model_type: str) -> bool:
    """Return True if transformers itself has a causal language model of this type."""
    return model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES


@dataclass(frozen=True, slots=True)
class _Past:
    """The keys and values of a sequence's first `num_tokens` tokens, as transformers keeps them."""

    cache: Cache
    num_tokens: int


class TransformersRunner:
    """Runs each chunk in a call of its own: right for every model, fast for none.

    Keys and values are in one cache object for each sequence, not in blocks; `block_size` and
    `num_blocks` only say how many tokens the scheduler may admit. For a chunk that does not
    continue its sequence's cache (a shared prefix, a preempted sequence) everything before it is
    computed again.
    """

    def __init__(
        self,
        path: Path,
        *,
        device: str,
        dtype: str,
        block_size: int,
        num_blocks: int,
        num_threads: int,
    ) -> None:
        torch.set_num_threads(num_threads)
        self._model = _load(path, device, dtype)
        parameters = inspect.signature(self._model.forward).parameters
        self._has_cache = "past_key_values" in parameters
        self._can_select_rows = "logits_to_keep" in parameters
        self._pasts: dict[int, _Past] = {}
        config = self._model.config.get_text_config(decoder=True)
        weights = list(self._model.parameters())
        self._info = RunnerInfo(
            name="transformers",
            vocab_size=config.vocab_size,
            max_context_tokens=_max_context_tokens(config),
            block_size=block_size,
            num_blocks=num_blocks,
            num_parameters=sum(weight.numel() for weight in weights),
            weight_bytes=sum(weight.nbytes for weight in weights),
            device=describe_device(self._model.device),
            dtype=dtype,
            num_threads=num_threads,
        )

    @property
    def info(self) -> RunnerInfo:
        return self._info

    @torch.inference_mode()
    def forward(self, batch: Batch) -> list[ChunkOutput]:
        return [self._compute(chunk) for chunk in batch.chunks]

    def weigh(self, logits: FloatArray, peak: float, temperature: float) -> DoubleArray:
        return relative_probabilities(logits, peak, temperature)

    def release(self, sequence_id: int) -> None:
        self._pasts.pop(sequence_id, None)

    def _compute(self, chunk: Chunk) -> ChunkOutput:
        # Taken out while the model works on it: a pass that fails leaves no half-written cache.
        past = self._pasts.pop(chunk.sequence.sequence_id, None)
        if past is None or past.num_tokens != chunk.start:
            past = _Past(self._make_cache(), 0) if self._has_cache else None
        end = chunk.start + chunk.length
        start = 0 if past is None else past.num_tokens
        out = self._call_model(chunk, start, end, past)
        if past is not None:
            self._pasts[chunk.sequence.sequence_id] = _Past(past.cache, end)
        return _output(chunk, out)

    def _call_model(self, chunk: Chunk, start: int, end: int, past: _Past | None) -> Any:
        token_ids = chunk.sequence.token_ids[start:end]
        arguments: dict[str, object] = {"use_cache": past is not None}
        if past is not None:
            arguments["past_key_values"] = past.cache
        if self._can_select_rows:
            # At least one row: 0 would mean all of them.
            arguments["logits_to_keep"] = chunk.length if chunk.rows is LogitRows.ALL else 1
        return self._model(
            input_ids=torch.tensor([token_ids], device=self._model.device),
            output_hidden_states=chunk.sequence.is_pooled,
            **arguments,
        )

    def _make_cache(self) -> Cache:
        return DynamicCache(config=self._model.config)


def _load(path: Path, device: str, dtype: str) -> PreTrainedModel:
    logging.disable_progress_bar()
    logging.set_verbosity_error()  # its table of misfits: the refusal below says it in a sentence
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            path,
            trust_remote_code=False,
            use_safetensors=True,
            local_files_only=True,
            dtype=getattr(torch, dtype),
            device_map="cpu" if device == "cpu" else "auto",
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # so that they are reported, and refused by name
        )
    except LOADING_ERRORS as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelRefused(f"transformers cannot load the model: {reason}") from error
    model: PreTrainedModel = loaded[0]
    report: dict[str, set[Any]] = loaded[1]
    for kind in ("missing", "unexpected", "mismatched"):
        if keys := report[f"{kind}_keys"]:
            first = min(key if isinstance(key, str) else key[0] for key in keys)
            raise ModelRefused(
                f"Tensors of the model that are {kind}: {len(keys)}, the first {first!r}."
                " The weights and config.json do not belong together; fetch the model again."
            )
    model.eval()
    if not _is_causal(model):
        raise ModelRefused(
            f"The model, of type {model.config.model_type!r}, reads text in both directions and"
            " cannot continue it. Choose a causal language model."
        )
    return model


@torch.inference_mode()
def _is_causal(model: PreTrainedModel) -> bool:
    """Try whether what follows changes the first token's logits: no configuration says it."""
    first, second = (
        model(input_ids=torch.tensor([[0, following]], device=model.device), use_cache=False)
        for following in (0, 1)
    )
    return torch.allclose(first.logits[:, 0], second.logits[:, 0], rtol=1e-2, atol=1e-3)


def _max_context_tokens(config: PretrainedConfig) -> int:
    limit = getattr(config, "max_position_embeddings", None)
    return limit if isinstance(limit, int) else DEFAULT_CONTEXT_TOKENS


def _output(chunk: Chunk, out: Any) -> ChunkOutput:
    rows = chunk.length if chunk.rows is LogitRows.ALL else 1
    logits = None
    if chunk.rows is not LogitRows.NONE:
        logits = out.logits[0, -rows:].float().cpu().numpy()
    hidden_sum = None
    if chunk.sequence.is_pooled:
        hidden = out.hidden_states[-1][0, -chunk.length :]
        hidden_sum = hidden.sum(dim=0, dtype=torch.float64).cpu().numpy()
    return ChunkOutput(logits=logits, hidden_sum=hidden_sum)
