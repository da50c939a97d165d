"""Native runners for tests: one library for the whole run, models rounded to bfloat16."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from appliance.engine.model.config import parse_model_config
from appliance.engine.native.kernels.build import find_compiler, load_library
from appliance.engine.native.kernels.library import VARIANTS, NativeLibrary
from appliance.engine.native.runner import NativeRunner
from appliance.models.directory.weights import read_tensors
from tests.kernel_cache import KERNEL_CACHE

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

BLOCK_SIZE = 16
NUM_BLOCKS = 256
QUANTIZATIONS = ("none", "int8", "int4")


@cache
def native_library() -> NativeLibrary:
    found = load_library(KERNEL_CACHE)
    if find_compiler() is None:
        pytest.skip(found.reason)
    assert found.library is not None, found.reason
    return found.library


def supported_variants() -> list[str]:
    """The variants that this CPU runs, best first; the best is left chosen."""
    library = native_library()
    supported = [name for name in VARIANTS if library.choose_variant(name)]
    library.choose_variant(supported[0])
    return supported


def native_runner(
    path: Path,
    *,
    quantization: str = "none",
    num_threads: int = 1,
    block_size: int = BLOCK_SIZE,
    num_blocks: int = NUM_BLOCKS,
    cache_dir: Path | None = None,
) -> NativeRunner:
    values = json.loads((path / "config.json").read_text())
    config = parse_model_config({**values, "quantization_config": None})
    assert config is not None
    return NativeRunner(
        native_library(),
        config,
        read_tensors(path, tuple(sorted(path.glob("*.safetensors"))), is_quantized=True),
        block_size=block_size,
        num_blocks=num_blocks,
        num_threads=num_threads,
        quantization=quantization,
        cache_dir=cache_dir,
    )


def save_rounded_model(config: PretrainedConfig, path: Path, dtype: str = "bfloat16") -> None:
    """A model whose weights are whole in bfloat16: then only the arithmetic is compared."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(11)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.3)
            parameter.copy_(parameter.bfloat16())
    model.type(getattr(torch, dtype)).save_pretrained(path)


def embedded_model() -> Path:
    path = Path(str(resources.files("appliance") / "embedded"))
    if not (path / "model.safetensors").exists():
        pytest.skip("the embedded model is not in this checkout")
    return path
