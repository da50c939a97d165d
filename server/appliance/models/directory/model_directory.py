"""Opens a model directory: every fact about a model that is known before anything is loaded."""

from __future__ import annotations

import importlib.resources
import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.engine.model.config import expected_tensors, parse_model_config
from appliance.engine.model.quantized import kept_tensors, quantized_tensors
from appliance.errors import ModelRefused
from appliance.models.directory.inventory import CONFIG, GENERATION_CONFIG, take_inventory
from appliance.models.directory.lock import verify_lock
from appliance.models.directory.quantization import read_quantization
from appliance.models.directory.tokenizer_files import TokenizerFiles, read_tokenizer_files
from appliance.models.directory.weights import (
    read_tensors,
    select_expected,
    select_quantized,
    stored_dtype,
)
from appliance.models.hashing import FileHasher

if TYPE_CHECKING:
    from collections.abc import Mapping

    from appliance.engine.model.config import ModelConfig
    from appliance.engine.model.tensor_file import TensorLocation
    from appliance.models.directory.inventory import Inventory
    from appliance.models.directory.json_file import JsonObject

MAX_LAYERS = 1000  # a config.json with more is a mistake or an attack on memory
CAUSAL_ENDINGS = ("ForCausalLM", "LMHeadModel")
CONTEXT_FIELDS = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_length")
EMBEDDING_ENDINGS = (
    "embed_tokens.weight",
    "wte.weight",
    "word_embeddings.weight",
    "embed_in.weight",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationDefaults:
    """What generation_config.json says for requests that do not; None where it is silent."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelDirectory:
    """A model that passed every check. `native` is None for the plain runner's models."""

    name: str
    path: Path
    config: Mapping[str, object]
    architecture: str
    model_type: str
    native: ModelConfig | None
    tensors: Mapping[str, TensorLocation]  # what a runner needs, and for a native model no more
    files: Mapping[str, Path]  # by role: config, tokenizer, tokenizer_config, chat_template, …
    weight_files: tuple[Path, ...]
    is_locked: bool  # every file was verified against model.lock.json
    chat_template: str | None
    special_tokens: Mapping[str, str]  # bos_token, eos_token, pad_token, unk_token
    bos_token_id: int | None
    eos_token_ids: frozenset[int]
    add_bos_token: bool
    num_tokens: int  # the tokenizer's largest id plus one
    vocab_size: int | None  # rows of the embedding; may exceed num_tokens
    max_context_tokens: int | None  # None: config.json does not say
    dtype: str  # stored: bfloat16, float16 or float32; of a quantized model what is not quantized
    quantization: str  # stored: none, int8 or int4
    num_parameters: int
    weight_bytes: int
    generation_defaults: GenerationDefaults


def embedded_model_path() -> Path:
    """The model that ships in the package."""
    return Path(str(importlib.resources.files("appliance") / "embedded"))


def open_model(
    path: Path, *, name: str | None = None, hasher: FileHasher | None = None
) -> ModelDirectory:
    """The model at `path`, or ModelRefused. Reads JSON and headers; a locked model is hashed."""
    inventory = take_inventory(path)
    is_locked = verify_lock(inventory, hasher or FileHasher())
    config = inventory.read_object("config")
    architecture, model_type = _check_kind(config)
    quantization = read_quantization(config)
    native = _parse_native({**config, "quantization_config": None})
    tensors = _read_weights(inventory, native, quantization)
    tokenizer = read_tokenizer_files(inventory)
    vocab_size = native.vocab_size if native is not None else _vocab_size(config, tensors)
    _check_vocab(tokenizer, vocab_size)
    generation = inventory.read_object("generation_config")
    return ModelDirectory(
        name=name or default_name(path.resolve()),
        path=path,
        config=config,
        architecture=architecture,
        model_type=model_type,
        native=native,
        tensors=tensors,
        files=inventory.files,
        weight_files=inventory.weight_files,
        is_locked=is_locked,
        chat_template=tokenizer.chat_template,
        special_tokens=tokenizer.special_tokens,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_ids=_eos_token_ids(config, generation, tokenizer, vocab_size),
        add_bos_token=tokenizer.add_bos_token,
        num_tokens=tokenizer.num_tokens,
        vocab_size=vocab_size,
        max_context_tokens=native.max_context_tokens if native else _context(config),
        dtype=stored_dtype(tensors),
        quantization=quantization,
        num_parameters=_num_parameters(native, tensors),
        weight_bytes=sum(location.size_bytes for location in tensors.values()),
        generation_defaults=_generation_defaults(generation),
    )


def _read_weights(
    inventory: Inventory, native: ModelConfig | None, quantization: str
) -> Mapping[str, TensorLocation]:
    directory, files = inventory.directory, inventory.weight_files
    if quantization == "none":
        tensors = read_tensors(directory, files)
        if native is None:
            return tensors
        return select_expected(tensors, expected_tensors(native), is_tied=native.is_tied)
    if native is None:
        raise ModelRefused(
            f"The model is quantized, and {CONFIG} describes none that quantized weights are for."
            " Quantize the original again."
        )
    return select_quantized(
        read_tensors(directory, files, is_quantized=True),
        quantized_tensors(native, quantization),
        kept_tensors(native),
    )


def _num_parameters(native: ModelConfig | None, tensors: Mapping[str, TensorLocation]) -> int:
    """Of the model itself, however many values quantizing stores them in."""
    if native is not None:
        return sum(math.prod(shape) for shape in expected_tensors(native).values())
    return sum(location.num_elements for location in tensors.values())


def default_name(path: Path) -> str:
    """The directory's name; in a Hugging Face cache the repository's."""
    repository = path.parent.parent.name
    if path.parent.name == "snapshots" and repository.startswith("models--"):
        return repository.removeprefix("models--").replace("--", "/")
    return path.name


def _check_kind(config: JsonObject) -> tuple[str, str]:
    """Architecture and model type of a causal language model."""
    architectures, model_type = config.get("architectures"), config.get("model_type")
    if not isinstance(model_type, str) or not model_type:
        raise ModelRefused(f"{CONFIG} has no model_type, so nobody can tell what the model is.")
    if not isinstance(architectures, list) or not architectures:
        raise ModelRefused(f"{CONFIG} has no architectures, so nobody can tell what the model is.")
    architecture = architectures[0]
    if not isinstance(architecture, str):
        raise ModelRefused(f"architectures in {CONFIG} must be a list of names.")
    if not architecture.endswith(CAUSAL_ENDINGS) or config.get("is_encoder_decoder") is True:
        raise ModelRefused(
            f"{architecture[:80]} is not a causal language model, so it cannot continue text."
            " Use a model whose architecture ends in ForCausalLM."
        )
    return architecture, model_type


def _parse_native(config: JsonObject) -> ModelConfig | None:
    num_layers = config.get("num_hidden_layers", 0)
    if isinstance(num_layers, int) and num_layers > MAX_LAYERS:
        raise ModelRefused(f"{CONFIG}: num_hidden_layers is above the limit of {MAX_LAYERS}.")
    try:
        return parse_model_config(config)
    except (TypeError, ValueError, ArithmeticError) as error:
        raise ModelRefused(
            f"{CONFIG} holds a value that no model can have ({type(error).__name__})."
        ) from None


def _vocab_size(config: JsonObject, tensors: Mapping[str, TensorLocation]) -> int | None:
    """Rows of the embedding of a model we do not know; config.json's word when it is not found."""
    for name, location in tensors.items():
        if name.endswith(EMBEDDING_ENDINGS) and len(location.shape) == 2:
            return location.shape[0]
    return _optional_count(config, "vocab_size", CONFIG)


def _check_vocab(tokenizer: TokenizerFiles, vocab_size: int | None) -> None:
    if vocab_size is not None and tokenizer.num_tokens > vocab_size:
        raise ModelRefused(
            f"The tokenizer's largest token id is {tokenizer.num_tokens - 1}, but the embedding has"
            f" {vocab_size} rows. The tokenizer belongs to another model, or tokens were added"
            " without resizing the embedding."
        )


def _context(config: JsonObject) -> int | None:
    found = (_optional_count(config, field, CONFIG) for field in CONTEXT_FIELDS)
    return next((count for count in found if count is not None), None)


def _optional_count(values: JsonObject, field: str, file: str) -> int | None:
    value = values.get(field)
    if value is None:
        return None
    if type(value) is not int or not 1 <= value < 2**31:
        raise ModelRefused(
            f"{file}: {field} is {repr(value)[:40]}; it must be a whole number from 1."
        )
    return value


def _eos_token_ids(
    config: JsonObject, generation: JsonObject, tokenizer: TokenizerFiles, vocab_size: int | None
) -> frozenset[int]:
    """Every token that any of the files calls the end."""
    found = {*_ids(config, CONFIG), *_ids(generation, GENERATION_CONFIG)}
    if tokenizer.eos_token_id is not None:
        found.add(tokenizer.eos_token_id)
    limit = vocab_size or tokenizer.num_tokens
    for token_id in sorted(found):
        if token_id >= limit:
            raise ModelRefused(
                f"eos_token_id {token_id} is beyond the vocabulary of {limit} tokens."
            )
    return frozenset(found)


def _ids(values: JsonObject, file: str) -> list[int]:
    value = values.get("eos_token_id")
    entries = value if isinstance(value, list) else [] if value is None else [value]
    ids = [entry for entry in entries if type(entry) is int and 0 <= entry < 2**31]
    if len(ids) < len(entries):
        raise ModelRefused(f"{file}: eos_token_id is {repr(value)[:40]}; it must be token ids.")
    return ids


def _generation_defaults(generation: JsonObject) -> GenerationDefaults:
    values = {field.name: generation.get(field.name) for field in fields(GenerationDefaults)}
    for name, value in values.items():
        if value is not None and not _is_finite_number(value):
            raise ModelRefused(f"{GENERATION_CONFIG}: {name} is {repr(value)[:40]}, not a number.")
    numbers = {name: value for name, value in values.items() if isinstance(value, int | float)}
    top_k = numbers.pop("top_k", 0)
    if top_k > 0:  # 0 and -1 are two spellings of "no limit"
        numbers["top_k"] = int(top_k)
    for name, (low, high) in _RANGES.items():
        if not low <= numbers.get(name, low) <= high:
            raise ModelRefused(
                f"{GENERATION_CONFIG}: {name} is {numbers[name]}; it must be {low} to {high}."
            )
    return GenerationDefaults(**numbers)  # type: ignore[arg-type]


_RANGES = {
    "temperature": (0.0, 100.0),
    "top_p": (0.0, 1.0),
    "top_k": (1, 2**31),
    "min_p": (0.0, 1.0),
    "repetition_penalty": (1e-3, 100.0),
}


def _is_finite_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < 2**53 and math.isfinite(value)
