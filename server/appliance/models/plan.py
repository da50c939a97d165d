"""Chooses which runner computes a model, where and in what, and builds it."""

from __future__ import annotations

import importlib.util
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from appliance.engine.model.dtype import choose_dtype
from appliance.engine.runners import sizing
from appliance.errors import ModelRefused, SettingsError
from appliance.machine import available_cores, available_memory_bytes, has_accelerator_driver

if TYPE_CHECKING:
    from appliance.engine.native.kernels.library import NativeLibrary
    from appliance.engine.runner import Runner
    from appliance.models.directory import ModelDirectory
    from appliance.settings import Settings

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Which runner computes, where, and in what."""

    engine: str  # native, torch or transformers
    device: str
    dtype: str  # of activations, and of keys and values
    quantization: str = "none"
    num_threads: int
    free_bytes: int | None
    library: NativeLibrary | None = None  # of the native engine
    note: str | None = None  # why the engine is not the one that people would expect


def choose_place(settings: Settings, model: ModelDirectory) -> Place:
    """The settings' place, or the best there is. The native engine is chosen without torch."""
    num_threads = sizing.choose_threads(settings.threads, available_cores())
    engine, library, note = choose_engine(settings, model)
    if engine == "native":
        device, dtype, memory = "cpu", "bfloat16", None
    else:
        refuse_without_torch(settings, engine, note)
        memory = cuda_memory_bytes() if settings.device != "cpu" else None
        device = sizing.choose_device(settings.device, has_cuda=memory is not None)
        dtype = choose_dtype(settings.dtype, model.dtype, device)
    return Place(
        engine=engine,
        device=device,
        dtype=dtype,
        quantization=quantization_of(settings, model),
        num_threads=num_threads,
        free_bytes=available_memory_bytes() if device == "cpu" else memory,
        library=library,
        note=note,
    )


class Choice(NamedTuple):
    """An engine by name; the native one's library; a note where auto could not take that one."""

    engine: str
    library: NativeLibrary | None = None
    note: str | None = None


def choose_engine(settings: Settings, model: ModelDirectory) -> Choice:
    refuse_contradictions(settings, model)
    if settings.engine == "native" or quantization_of(settings, model) != "none":
        return require_native(settings, model)
    if settings.engine != "auto":
        return Choice(settings.engine)
    if model.native is None:
        return Choice("transformers")
    if settings.device == "cuda" or settings.dtype == "float32" or prefers_device(settings):
        return Choice("torch")
    return prefer_native(settings)


def quantization_of(settings: Settings, model: ModelDirectory) -> str:
    """How weights are computed with: as they are stored, or as the settings make them."""
    return settings.quantization if model.quantization == "none" else model.quantization


def require_native(settings: Settings, model: ModelDirectory) -> Choice:
    library, reason = load_kernels(settings)
    if library is None:
        raise SettingsError(
            f"{native_wish(settings, model)} and {reason}. Install gcc or clang, or use "
            f"{native_retreat(settings, model)}."
        )
    return Choice("native", library)


def prefer_native(settings: Settings) -> Choice:
    """For a CPU: native, or torch where there are no kernels or only slow ones."""
    library, reason = load_kernels(settings)
    if library is None:
        logger.warning("the native engine cannot be had", extra={"why": reason})
        return Choice("torch", note=f"not native: {reason}")
    if library.variant == "scalar" and is_installed("torch"):
        return Choice("torch", note="not native: it has no fast code for this CPU yet")
    return Choice("native", library)


def refuse_contradictions(settings: Settings, model: ModelDirectory) -> None:
    """What no machine could do; the rest depends on what there is."""
    if model.quantization != "none" and settings.quantization not in ("none", model.quantization):
        raise SettingsError(
            f"--quantization is {settings.quantization} and the model is stored as "
            f"{model.quantization}. Leave --quantization out, or use the original model."
        )
    wish, retreat = native_wish(settings, model), native_retreat(settings, model)
    is_quantized = quantization_of(settings, model) != "none"
    if is_quantized and settings.engine in ("torch", "transformers"):
        raise SettingsError(
            f"{wish} and --engine is {settings.engine}, which has no quantized weights. "
            f"Use --engine native, or {retreat}."
        )
    named = "native" if is_quantized else settings.engine
    if model.native is None and named in ("native", "torch"):
        raise ModelRefused(
            f"The {named} engine does not know models of type {model.model_type}. "
            "Leave --engine and --quantization alone, or use --engine transformers."
        )
    if named == "native" and settings.device == "cuda":
        raise SettingsError(
            f"--device is cuda and {wish}, which is computed on CPUs alone. "
            f"Use {retreat}, or --device cpu."
        )
    if named == "native" and settings.dtype == "float32":
        raise SettingsError(
            f"--dtype is float32 and {wish}, which is computed in bfloat16 alone. "
            f"Use {retreat}, or --dtype bfloat16."
        )


def native_wish(settings: Settings, model: ModelDirectory) -> str:
    """What asks for the native engine."""
    if model.quantization != "none":
        return f"the model is stored as {model.quantization}"
    if settings.quantization != "none":
        return f"--quantization is {settings.quantization}"
    return "--engine is native"


def native_retreat(settings: Settings, model: ModelDirectory) -> str:
    if model.quantization != "none":
        return "the original model"
    return "--engine torch" if settings.quantization == "none" else "--quantization none"


def prefers_device(settings: Settings) -> bool:
    """Whether torch finds a device that is faster than this CPU; a machine without a driver for
    one is spared the import."""
    is_open = settings.device == "auto" and has_accelerator_driver() and is_installed("torch")
    return is_open and cuda_memory_bytes() is not None


def is_installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def refuse_without_torch(settings: Settings, engine: str, note: str | None) -> None:
    """The lean installation has the native engine alone."""
    missing = next((name for name in ("torch", engine) if not is_installed(name)), None)
    if missing is None:
        return
    wish = f"--engine is {settings.engine}" + (f" ({note})" if note else "")
    raise SettingsError(
        f"{wish}, and the {engine} engine needs {missing}, which is not installed here. "
        "Use --engine native with a model of the Llama family, or install the whole server."
    )


def load_kernels(settings: Settings) -> tuple[NativeLibrary | None, str]:
    from appliance.engine.native.kernels.build import load_library

    library, reason = load_library(settings.cache_dir)
    if library is not None:
        logger.debug("kernels loaded", extra={"how": reason, "variant": library.variant})
    return library, reason.rstrip(".")


def cuda_memory_bytes() -> int | None:
    """What is free on the first CUDA device; None without one."""
    import torch

    return torch.cuda.mem_get_info("cuda:0")[0] if torch.cuda.is_available() else None


def build_demand(settings: Settings, model: ModelDirectory, place: Place) -> sizing.Demand:
    native = model.native
    return sizing.Demand(
        model_context_tokens=model.max_context_tokens,
        max_context_tokens=settings.max_context_tokens,
        max_sequences=settings.max_sequences,
        kv_cache_tokens=settings.kv_cache_tokens,
        num_cache_values=native.num_cache_values_per_token
        if native is not None
        else sizing.estimate_cache_values(model.config),
        weight_bytes=weight_bytes(model, place),
        dtype=place.dtype,
    )


def weight_bytes(model: ModelDirectory, place: Place) -> int:
    """What the weights take. The native engine keeps the embedding in bfloat16, however few bits
    the rest has, and the output matrix beside it, also of a model that has one tensor for both.
    """
    config = model.native
    if place.library is None or config is None:
        return sizing.weight_bytes(model.num_parameters, place.dtype)
    from appliance.engine.native.packing import plan_matrices

    plan = plan_matrices(place.library, config, place.quantization)
    embedding = sizing.weight_bytes(config.vocab_size * config.hidden_size, place.dtype)
    return embedding + sum(matrix.size_bytes for matrix in plan.values())


def build_runner(
    settings: Settings,
    model: ModelDirectory,
    place: Place,
    demand: sizing.Demand,
    size: sizing.Size,
    weights_id: str | None = None,
) -> Runner:
    """The runner of the place, its weights loaded. `weights_id` is their hash, if known."""
    if place.engine == "transformers":
        return build_transformers_runner(model, place, size)
    sizing.check_room(demand, place.free_bytes)
    if place.engine == "native":
        return build_native_runner(settings, model, place, size, weights_id)
    return build_torch_runner(model, place, size)


def build_native_runner(
    settings: Settings,
    model: ModelDirectory,
    place: Place,
    size: sizing.Size,
    weights_id: str | None = None,
) -> Runner:
    """Without a cache directory the kernels are compiled, and the weights packed, at each start."""
    from appliance.engine.native.runner import NativeRunner

    assert model.native is not None and place.library is not None  # noqa: PT018, S101 - by choice
    return NativeRunner(
        place.library,
        model.native,
        model.tensors,
        block_size=sizing.BLOCK_SIZE,
        num_blocks=size.num_blocks,
        num_threads=place.num_threads,
        quantization=place.quantization,
        cache_dir=settings.cache_dir,
        weights_id=weights_id,
    )


def build_torch_runner(model: ModelDirectory, place: Place, size: sizing.Size) -> Runner:
    from appliance.engine.torch.fixed_attention import FixedShape
    from appliance.engine.torch.runner import TorchRunner

    assert model.native is not None  # noqa: S101 - refused before
    return TorchRunner(
        model.native,
        model.tensors,
        device=place.device,
        dtype=place.dtype,
        block_size=sizing.BLOCK_SIZE,
        num_blocks=size.num_blocks,
        num_threads=place.num_threads,
        # On CPUs the native engine keeps the law; there torch is the reference, in its own shapes.
        fixed_shape=None if place.device == "cpu" else FixedShape(),
    )


def build_transformers_runner(model: ModelDirectory, place: Place, size: sizing.Size) -> Runner:
    from appliance.engine.runners.transformers import TransformersRunner, is_known_to_transformers

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
