"""Refuses what no machine can do: options that contradict each other or the model."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from appliance.errors import ModelRefused, SettingsError, StartupError

if TYPE_CHECKING:
    from appliance.models.directory import ModelDirectory
    from appliance.models.options import ModelOptions


def quantization_of(options: ModelOptions, model: ModelDirectory) -> str:
    """Return how weights are computed with: as they are stored, or as the options make them."""
    return options.quantization if model.quantization == "none" else model.quantization


class NativeRequest(NamedTuple):
    """What the options and the model ask of the native runner."""

    options: ModelOptions
    model: ModelDirectory

    @property
    def is_quantized(self) -> bool:
        return quantization_of(self.options, self.model) != "none"

    @property
    def asks_native(self) -> bool:
        return self.options.runner == "native" or self.is_quantized

    @property
    def runner(self) -> str:
        return "native" if self.is_quantized else self.options.runner

    @property
    def reason(self) -> str:
        """What asks for the native runner."""
        if self.model.quantization != "none":
            return f"the model is stored as {self.model.quantization}"
        option = "quantization" if self.options.quantization != "none" else "runner"
        return f"{self.options.named(option)} is {getattr(self.options, option)}"

    @property
    def way_out(self) -> str:
        """What to use where there is no native runner."""
        if self.model.quantization != "none":
            return "the original model"
        if self.options.quantization == "none":
            return f"{self.options.named('runner')} torch"
        return f"{self.options.named('quantization')} none"


def _refuse_other_quantization(request: NativeRequest) -> StartupError:
    option, stored = request.options.named("quantization"), request.model.quantization
    return SettingsError(
        f"{option} is {request.options.quantization} and the model is stored as {stored}. "
        f"Leave {option} out, or use the original model."
    )


def _refuse_quantized_elsewhere(request: NativeRequest) -> StartupError:
    option = request.options.named("runner")
    return SettingsError(
        f"{request.reason} and {option} is {request.options.runner}, which has no quantized "
        f"weights. Use {option} native, or {request.way_out}."
    )


def _refuse_family(request: NativeRequest) -> StartupError:
    options = request.options
    return ModelRefused(
        f"The {request.runner} runner does not know models of type {request.model.model_type}. "
        f"Leave {options.named('runner')} and {options.named('quantization')} alone, or use "
        f"{options.named('runner')} transformers."
    )


def _refuse_device(request: NativeRequest) -> StartupError:
    option = request.options.named("device")
    return SettingsError(
        f"{option} is cuda and {request.reason}, which is computed on CPUs alone. "
        f"Use {request.way_out}, or {option} cpu."
    )


def _refuse_dtype(request: NativeRequest) -> StartupError:
    option = request.options.named("dtype")
    return SettingsError(
        f"{option} is float32 and {request.reason}, which is computed in bfloat16 alone. "
        f"Use {request.way_out}, or {option} bfloat16."
    )


# When, and how it is refused. The rest depends on what there is.
REFUSALS: tuple[
    tuple[Callable[[NativeRequest], bool], Callable[[NativeRequest], StartupError]], ...
] = (
    (
        lambda r: (
            r.model.quantization != "none"
            and r.options.quantization not in ("none", r.model.quantization)
        ),
        _refuse_other_quantization,
    ),
    (
        lambda r: r.is_quantized and r.options.runner in ("torch", "transformers"),
        _refuse_quantized_elsewhere,
    ),
    (lambda r: r.model.native is None and r.runner in ("native", "torch"), _refuse_family),
    (lambda r: r.runner == "native" and r.options.device == "cuda", _refuse_device),
    (lambda r: r.runner == "native" and r.options.dtype == "float32", _refuse_dtype),
)


def refuse_contradictions(request: NativeRequest) -> None:
    for applies, refusal in REFUSALS:
        if applies(request):
            raise refusal(request)
