"""A small forward pass for a library that watches its memory: `sanitized_forward.py DIRECTORY`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from appliance.engine.model.config import parse_model_config
from appliance.engine.native.kernels.library import VARIANTS, NativeLibrary
from appliance.engine.native.runner import NativeRunner
from appliance.engine.sequence import Batch, Chunk, LogitRows, SamplingParams, Sequence
from appliance.models.directory.weights import read_tensors
from tests.model_factory import write_model

ODD = {"hidden_size": 40, "intermediate_size": 72, "head_dim": 12, "num_attention_heads": 6}


def run(library: NativeLibrary, path: Path, quantization: str) -> None:
    config = parse_model_config(json.loads((path / "config.json").read_text()))
    assert config is not None
    runner = NativeRunner(
        library,
        config,
        read_tensors(path, (path / "model.safetensors",)),
        block_size=16,
        num_blocks=8,
        num_threads=2,
        quantization=quantization,
    )
    params = SamplingParams(max_new_tokens=1, seed=0)
    first = Sequence(
        sequence_id=1, prompt_ids=tuple(range(50)), params=params, block_table=[7, 0, 3, 5]
    )
    second = Sequence(
        sequence_id=2, prompt_ids=(1, 2, 3), params=params, block_table=[1], is_pooled=True
    )
    runner.forward(Batch((Chunk(first, 0, 33, LogitRows.NONE),)))
    runner.forward(
        Batch((Chunk(first, 33, 16, LogitRows.ALL), Chunk(second, 0, 3, LogitRows.NONE)))
    )
    runner.forward(Batch((Chunk(first, 49, 1, LogitRows.LAST),)))


def main(directory: Path) -> None:
    library = NativeLibrary(directory / "sanitized.so")
    models = (
        write_model(directory / "llama"),
        write_model(directory / "qwen3", model_type="qwen3", dtype="F16", **ODD),
        write_model(directory / "mistral", model_type="mistral", sliding_window=20),
    )
    for variant in VARIANTS:
        if library.choose_variant(variant):
            for path in models:
                for quantization in ("none", "int8", "int4"):
                    run(library, path, quantization)
    print("clean")  # noqa: T201 - what the test looks for


if __name__ == "__main__":
    main(Path(sys.argv[1]))
