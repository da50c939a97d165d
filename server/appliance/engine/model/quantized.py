"""Names the tensors that hold the weights of a quantized model, and their shapes.

A quantized directory is the original with other weights. Each linear layer X is stored by rows:

int8  X.weight  I8   [n, k]            value = weight * scale
      X.scales  BF16 [n, k / 128]
int4  X.weight  U8   [n, k / 2]        value = (nibble - zero) * step * scale
      X.codes   U8   [n, k / 32]       zero << 4 | step
      X.scales  BF16 [n, k / 128]

Of two nibbles the low one comes first. All divisions round up. The output matrix is int8 in both
and always there as `lm_head`, also where the original's is its embedding. Everything else is
stored as it was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.engine.model.config import expected_tensors

if TYPE_CHECKING:
    from collections.abc import Mapping

    from appliance.engine.model.config import ModelConfig

QUANT_METHOD = "llama-appliance"  # of config.json's quantization_config
LAYOUT = 1
QUANTIZATIONS = ("int8", "int4")
GROUP = 128  # inputs that share a scale
SUBGROUP = 32  # inputs of int4 that share a zero and a step

Shape = tuple[int, ...]


def kind_of(name: str, quantization: str) -> str:
    """Return how the matrix `name` is stored; the output matrix is int8, as it decides tokens."""
    return "int8" if name == "lm_head" else quantization


def parts_of(kind: str, n: int, k: int) -> dict[str, tuple[str, Shape]]:
    """Return dtype and shape of each stored part of a matrix [n, k], by name."""
    scales = ("BF16", (n, -(-k // GROUP)))
    if kind == "int8":
        return {"weight": ("I8", (n, k)), "scales": scales}
    codes = ("U8", (n, -(-k // SUBGROUP)))
    return {"weight": ("U8", (n, -(-k // 2))), "codes": codes, "scales": scales}


def linear_layers(config: ModelConfig) -> dict[str, Shape]:
    """List every matrix that is quantized, by its name without `.weight`."""
    layers = {
        name.removesuffix(".weight"): shape
        for name, shape in expected_tensors(config).items()
        if len(shape) == 2 and name != "model.embed_tokens.weight"
    }
    return {**layers, "lm_head": (config.vocab_size, config.hidden_size)}


def quantized_tensors(config: ModelConfig, quantization: str) -> Mapping[str, tuple[str, Shape]]:
    """Return dtype and shape of every tensor that quantizing makes."""
    return {
        f"{name}.{part}": stored
        for name, (n, k) in linear_layers(config).items()
        for part, stored in parts_of(kind_of(name, quantization), n, k).items()
    }


def kept_tensors(config: ModelConfig) -> Mapping[str, Shape]:
    """List the tensors that quantizing leaves alone: embedding, norms, biases."""
    layers = linear_layers(config)
    return {
        name: shape
        for name, shape in expected_tensors(config).items()
        if name.removesuffix(".weight") not in layers
    }
