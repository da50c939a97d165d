"""Times the torch runner in fixed and in its own shapes; `python -m tests.gpu.figures OUT.json`."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch

from appliance.engine.runner import Runner
from appliance.engine.sequence import Batch, Chunk, LogitRows
from appliance.engine.sequence import Sequence as Tokens
from appliance.engine.torch.fixed_attention import FixedShape
from bench.checkpoints import SHAPES, open_checkpoint
from tests.engine.runner_harness import Sequences, random_tokens, torch_runner

PREFIX = 128
BATCHES = (1, 8, 64)
SHAPES_TIMED = {"fixed": FixedShape(), "free": None}


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument(
        "--models", default="embedded,S,L", help=f"of embedded, {', '.join(SHAPES)}"
    )
    parser.add_argument("--rounds", type=int, default=20)
    chosen = parser.parse_args(arguments)
    figures = {
        "device": name_of(chosen.device),
        "torch": torch.__version__,
        "dtype": "bfloat16",
        "unit": "tokens a second, median; decode after 128 tokens, prefill of 512",
        "models": {
            name: measure(open_checkpoint(name).path, chosen.device, chosen.rounds)
            for name in chosen.models.split(",")
        },
    }
    chosen.out.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(figures, indent=1))


def name_of(device: str) -> str:
    return device if device == "cpu" else torch.cuda.get_device_name(device)


def measure(path: Path, device: str, rounds: int) -> dict[str, dict[str, float | bool]]:
    return {name: measure_one(path, device, rounds, shape) for name, shape in SHAPES_TIMED.items()}


def measure_one(
    path: Path, device: str, rounds: int, shape: FixedShape | None
) -> dict[str, float | bool]:
    began = time.perf_counter()
    num_blocks = max(BATCHES) * -(-(PREFIX + 1) // 16) + 32
    runner = torch_runner(
        path,
        device=device,
        dtype="bfloat16",
        block_size=16,
        num_blocks=num_blocks,
        fixed_shape=shape,
    )
    found: dict[str, float | bool] = {
        "load_s": round(time.perf_counter() - began, 2),
        "keeps the law": runner.info.has_fixed_arithmetic,
    }
    for batch in BATCHES:
        found[f"decode, {batch} at once"] = rate(decode(runner, batch, num_blocks), batch, rounds)
    found["prefill"] = rate(prefill(runner, num_blocks), 512, rounds)
    return found


def decode(runner: Runner, batch: int, num_blocks: int) -> Callable[[], object]:
    sequences = [make(runner, PREFIX + 1, num_blocks, seed) for seed in range(batch)]
    for sequence in sequences:
        runner.forward(Batch((Chunk(sequence, 0, PREFIX, LogitRows.NONE),)))
    step = Batch(tuple(Chunk(each, PREFIX, 1, LogitRows.LAST) for each in sequences))
    return partial(runner.forward, step)


def prefill(runner: Runner, num_blocks: int) -> Callable[[], object]:
    sequence = make(runner, 512, num_blocks, 0)
    step = Batch((Chunk(sequence, 0, 512, LogitRows.LAST),))
    return partial(runner.forward, step)


def make(runner: Runner, length: int, num_blocks: int, seed: int) -> Tokens:
    """Sequence number `seed` of a batch, in blocks of its own."""
    tokens = random_tokens(length, seed=seed, vocab_size=runner.info.vocab_size)
    width = -(-length // 16)
    sequence = Sequences(block_size=16).make(tokens)
    sequence.block_table = list(range(seed * width, (seed + 1) * width))
    assert sequence.block_table[-1] < num_blocks
    return sequence


def rate(step: Callable[[], object], num_tokens: int, rounds: int) -> float:
    step()
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        step()  # ends with logits on the host
        times.append(time.perf_counter() - began)
    return round(num_tokens / statistics.median(times), 1)


if __name__ == "__main__":
    main(sys.argv[1:])
