"""Small models with random weights, and runners driven by hand-made batches.

torch and transformers are imported by the functions that use them: the rest works without.
"""

from __future__ import annotations

import json
import random
from itertools import count
from typing import TYPE_CHECKING

import numpy as np

from appliance.engine.model.config import parse_model_config
from appliance.engine.sequence import (
    Batch,
    Chunk,
    FloatArray,
    LogitRows,
    SamplingParams,
    Sequence,
)
from appliance.models.directory.weights import read_tensors

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from transformers import PretrainedConfig, PreTrainedModel

    from appliance.engine.runner import Runner
    from appliance.engine.runners.transformers import TransformersRunner
    from appliance.engine.torch.fixed_attention import FixedShape
    from appliance.engine.torch.runner import TorchRunner

BLOCK_SIZE = 8
NUM_BLOCKS = 256
VOCAB_SIZE = 199


def save_model(config: PretrainedConfig, path: Path, *, shard_size: str = "1GB") -> None:
    """A float32 model whose every weight matters: biases are not zero, norms are not one."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(11)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.3)
    model.save_pretrained(path, max_shard_size=shard_size)


def load_reference(path: Path) -> PreTrainedModel:
    import torch
    from transformers import AutoModelForCausalLM

    loaded: PreTrainedModel = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    loaded.eval()
    return loaded


def reference_logits(model: PreTrainedModel, token_ids: list[int]) -> FloatArray:
    import torch

    with torch.inference_mode():
        logits: torch.Tensor = model(input_ids=torch.tensor([token_ids]), use_cache=False).logits[0]
    return logits.numpy()


def torch_runner(
    path: Path,
    *,
    dtype: str = "float32",
    block_size: int = BLOCK_SIZE,
    num_blocks: int = NUM_BLOCKS,
    device: str = "cpu",
    fixed_shape: FixedShape | None = None,
) -> TorchRunner:
    from appliance.engine.torch.runner import TorchRunner

    config = parse_model_config(json.loads((path / "config.json").read_text()))
    assert config is not None
    return TorchRunner(
        config,
        read_tensors(path, tuple(sorted(path.glob("*.safetensors")))),
        device=device,
        dtype=dtype,
        block_size=block_size,
        num_blocks=num_blocks,
        num_threads=1,
        fixed_shape=fixed_shape,
    )


def transformers_runner(path: Path) -> TransformersRunner:
    from appliance.engine.runners.transformers import TransformersRunner

    return TransformersRunner(
        path,
        device="cpu",
        dtype="float32",
        block_size=BLOCK_SIZE,
        num_blocks=NUM_BLOCKS,
        num_threads=1,
    )


class Sequences:
    """Makes sequences whose blocks lie scattered over the cache, no block twice."""

    def __init__(self, *, block_size: int = BLOCK_SIZE, seed: int = 5) -> None:
        self._block_size = block_size
        self._ids = count(1)
        self._free = list(range(NUM_BLOCKS))
        random.Random(seed).shuffle(self._free)

    def make(self, token_ids: Iterable[int], *, is_pooled: bool = False) -> Sequence:
        prompt_ids = tuple(token_ids)
        num_blocks = -(-len(prompt_ids) // self._block_size)
        return Sequence(
            sequence_id=next(self._ids),
            prompt_ids=prompt_ids,
            params=SamplingParams(max_new_tokens=0, seed=0),
            is_pooled=is_pooled,
            block_table=[self._free.pop() for _ in range(num_blocks)],
        )

    def free(self, sequence: Sequence) -> None:
        self._free += sequence.block_table


def random_tokens(length: int, *, seed: int = 3, vocab_size: int = VOCAB_SIZE) -> list[int]:
    rng = random.Random(seed)
    return [rng.randrange(vocab_size) for _ in range(length)]


def run_chunks(
    runner: Runner, sequence: Sequence, lengths: Iterable[int], *, start: int = 0
) -> FloatArray:
    """The logits of every row, computed in chunks of `lengths` from `start` on."""
    rows = []
    for length in lengths:
        chunk = Chunk(sequence, start, length, LogitRows.ALL)
        (output,) = runner.forward(Batch((chunk,)))
        assert output.logits is not None
        rows.append(output.logits)
        start += length
    return np.concatenate(rows)


def run_decode(runner: Runner, sequence: Sequence, num_prefilled: int) -> FloatArray:
    """Prefill `num_prefilled` tokens, then the rest one by one; the logits of every row."""
    num_decoded = len(sequence.token_ids) - num_prefilled
    return run_chunks(runner, sequence, [num_prefilled] + [1] * num_decoded)


def generate_greedily(runner: Runner, sequence: Sequence, num_tokens: int) -> list[int]:
    """Append the likeliest token `num_tokens` times."""
    start = 0
    for _ in range(num_tokens):
        length = len(sequence.token_ids) - start
        chunk = Chunk(sequence, start, length, LogitRows.LAST)
        (output,) = runner.forward(Batch((chunk,)))
        assert output.logits is not None
        assert output.logits.shape[0] == 1
        start += length
        sequence.token_ids.append(int(output.logits[0].argmax()))
    return sequence.token_ids[len(sequence.prompt_ids) :]


def largest_difference(left: FloatArray, right: FloatArray) -> float:
    assert left.shape == right.shape
    return float(np.abs(left - right).max())
