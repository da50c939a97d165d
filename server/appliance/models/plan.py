"""Plans the load of a model: which runner computes it, where, in what, and how large."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from appliance.engine.model.dtype import choose_dtype
from appliance.engine.runners import sizing
from appliance.errors import ModelRefused, SettingsError
from appliance.models.contradictions import (
    NativeRequest,
    quantization_of,
    refuse_contradictions,
)

if TYPE_CHECKING:
    from appliance.engine.native.kernels.library import NativeLibrary
    from appliance.engine.runner import Runner
    from appliance.models.directory import ModelDirectory
    from appliance.models.machine import Machine
    from appliance.models.options import ModelOptions

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadPlan:
    """A model about to be loaded: all that was chosen for it."""

    options: ModelOptions
    model: ModelDirectory
    machine: Machine
    runner: str  # native, torch or transformers
    device: str
    dtype: str  # of activations, and of keys and values
    quantization: str
    num_threads: int
    demand: sizing.Demand
    size: sizing.Size
    free_bytes: int | None
    library: NativeLibrary | None = None  # of the native runner
    note: str | None = None  # why the runner is not the one that people would expect

    @property
    def needed_bytes(self) -> int:
        """What the weights and the cache take once they are in use."""
        return self.demand.weight_bytes + self.size.cache_tokens * self.demand.token_bytes

    @property
    def least_bytes(self) -> int:
        """What must be free: a cache that was fitted needs no more than one context of it."""
        tokens = self.size.cache_tokens
        if self.demand.kv_cache_tokens is None:
            tokens = min(tokens, self.size.context_tokens)
        return self.demand.weight_bytes + tokens * self.demand.token_bytes

    def load(self, weights_id: str | None = None) -> Runner:
        """Return the runner, its weights loaded. `weights_id` is their hash, if known."""
        with sizing.refused_without_memory():
            if self.runner != "transformers":
                option = self.options.named("kv_cache_tokens")
                sizing.check_room(self.demand, self.free_bytes, option)
            return BUILDERS[self.runner](self, weights_id)


def plan_runner(
    options: ModelOptions,
    model: ModelDirectory,
    machine: Machine,
    *,
    taken_bytes: int = 0,
) -> LoadPlan:
    """Choose as the options say, or the best there is. The native runner is chosen without torch.

    `taken_bytes` of the free memory belong to other models, which may not have touched it yet.
    """
    num_threads = sizing.choose_threads(
        options.threads, machine.num_cores, options.named("threads")
    )
    choice = choose_runner(options, model, machine)
    if choice.runner == "native":
        device, dtype, memory = "cpu", "bfloat16", None
    else:
        refuse_without_torch(options, choice, machine)
        memory = machine.cuda_memory_bytes() if options.device != "cpu" else None
        device = sizing.choose_device(
            options.device, options.named("device"), has_cuda=memory is not None
        )
        dtype = choose_dtype(options.dtype, model.dtype, device)
    quantization = quantization_of(options, model)
    free_bytes = machine.free_memory_bytes() if device == "cpu" else memory
    if free_bytes is not None:
        free_bytes = max(free_bytes - taken_bytes, 0)
    demand = build_demand(options, model, choice.library, dtype, quantization)
    return LoadPlan(
        options=options,
        model=model,
        machine=machine,
        runner=choice.runner,
        device=device,
        dtype=dtype,
        quantization=quantization,
        num_threads=num_threads,
        demand=demand,
        size=sizing.fit(demand, free_bytes, options.cache_share),
        free_bytes=free_bytes,
        library=choice.library,
        note=choice.note,
    )


class Choice(NamedTuple):
    """A runner by name; the native one's library; a note where auto could not take that one."""

    runner: str
    library: NativeLibrary | None = None
    note: str | None = None


def choose_runner(options: ModelOptions, model: ModelDirectory, machine: Machine) -> Choice:
    request = NativeRequest(options, model)
    refuse_contradictions(request)
    if request.asks_native:
        return require_native(request, machine)
    if options.runner != "auto":
        return Choice(options.runner)
    if model.native is None:
        return Choice("transformers")
    if options.device == "cuda" or options.dtype == "float32" or has_device(options, machine):
        return Choice("torch")
    return prefer_native(machine)


def require_native(request: NativeRequest, machine: Machine) -> Choice:
    library, reason = machine.kernels()
    if library is None:
        raise SettingsError(
            f"{request.reason} and {reason}. Install gcc or clang, or use {request.way_out}."
        )
    return Choice("native", library)


def prefer_native(machine: Machine) -> Choice:
    """For a CPU: native, or torch where there are no kernels or only slow ones."""
    library, reason = machine.kernels()
    if library is None:
        logger.warning("native runner unavailable", extra={"why": reason})
        return Choice("torch", note=f"not native: {reason}")
    if library.variant == "scalar" and machine.is_installed("torch"):
        return Choice("torch", note="not native: it has no fast code for this CPU yet")
    return Choice("native", library)


def has_device(options: ModelOptions, machine: Machine) -> bool:
    """Return whether torch finds a device that is faster than this CPU."""
    is_open = options.device == "auto" and machine.may_have_accelerator()
    return is_open and machine.is_installed("torch") and machine.cuda_memory_bytes() is not None


def refuse_without_torch(options: ModelOptions, choice: Choice, machine: Machine) -> None:
    """The lean installation has the native runner alone."""
    needed = ("torch", choice.runner)
    missing = next((name for name in needed if not machine.is_installed(name)), None)
    if missing is None:
        return
    option = options.named("runner")
    reason = f"{option} is {options.runner}" + (f" ({choice.note})" if choice.note else "")
    raise SettingsError(
        f"{reason}, and the {choice.runner} runner needs {missing}, which is not installed here. "
        f"Use {option} native with a model of the Llama family, or install the whole server."
    )


def build_demand(
    options: ModelOptions,
    model: ModelDirectory,
    library: NativeLibrary | None,
    dtype: str,
    quantization: str,
) -> sizing.Demand:
    native = model.native
    return sizing.Demand(
        model_context_tokens=model.max_context_tokens,
        max_context_tokens=options.max_context_tokens,
        max_sequences=options.max_sequences,
        kv_cache_tokens=options.kv_cache_tokens,
        num_cache_values=native.num_cache_values_per_token
        if native is not None
        else sizing.estimate_cache_values(model.config),
        weight_bytes=weight_bytes(model, library, dtype, quantization),
        dtype=dtype,
    )


def weight_bytes(
    model: ModelDirectory, library: NativeLibrary | None, dtype: str, quantization: str
) -> int:
    """Return what the weights take. The native runner keeps the embedding in bfloat16, however few
    bits the rest has, and the output matrix beside it, also of a model with one tensor for both.
    """
    config = model.native
    if library is None or config is None:
        return sizing.weight_bytes(model.num_parameters, dtype)
    from appliance.engine.native.packing import plan_matrices

    matrices = plan_matrices(library, config, quantization)
    embedding = sizing.weight_bytes(config.vocab_size * config.hidden_size, dtype)
    return embedding + sum(matrix.size_bytes for matrix in matrices.values())


def _build_native(plan: LoadPlan, weights_id: str | None) -> Runner:
    """Without a cache directory the kernels are compiled, and the weights packed, at each start."""
    from appliance.engine.native.runner import NativeRunner

    assert plan.model.native is not None and plan.library is not None  # noqa: PT018, S101 - chosen
    return NativeRunner(
        plan.library,
        plan.model.native,
        plan.model.tensors,
        block_size=sizing.BLOCK_SIZE,
        num_blocks=plan.size.num_blocks,
        num_threads=plan.num_threads,
        quantization=plan.quantization,
        cache_dir=plan.machine.cache_dir,
        weights_id=weights_id,
    )


def _build_torch(plan: LoadPlan, _: str | None) -> Runner:
    from appliance.engine.torch.fixed_attention import FixedShape
    from appliance.engine.torch.runner import TorchRunner

    assert plan.model.native is not None  # noqa: S101 - refused before
    return TorchRunner(
        plan.model.native,
        plan.model.tensors,
        device=plan.device,
        dtype=plan.dtype,
        block_size=sizing.BLOCK_SIZE,
        num_blocks=plan.size.num_blocks,
        num_threads=plan.num_threads,
        # On CPUs the native runner keeps the law; there torch is the reference, in its own shapes.
        fixed_shape=None if plan.device == "cpu" else FixedShape(),
    )


def _build_transformers(plan: LoadPlan, _: str | None) -> Runner:
    from appliance.engine.runners.transformers import TransformersRunner, is_known_to_transformers

    model = plan.model
    if not is_known_to_transformers(model.model_type):
        raise ModelRefused(
            f"Models of type {model.model_type} are not among those that this release can run: the "
            "Llama family, Mistral, Qwen 2 and 3, and every causal model that transformers knows."
        )
    return TransformersRunner(
        model.path,
        device=plan.device,
        dtype=plan.dtype,
        block_size=sizing.BLOCK_SIZE,
        num_blocks=plan.size.num_blocks,
        num_threads=plan.num_threads,
    )


BUILDERS: dict[str, Callable[[LoadPlan, str | None], Runner]] = {
    "native": _build_native,
    "torch": _build_torch,
    "transformers": _build_transformers,
}
