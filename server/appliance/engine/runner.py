"""Defines a runner: it computes the logits of a batch, one implementation a kind of model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from appliance.engine.sequence import Batch, ChunkOutput, DoubleArray, FloatArray


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerInfo:
    """Describes what a loaded runner can do; shown at start-up and in /version."""

    name: str  # "torch", "transformers", "native"; clients see it in /version
    vocab_size: int
    max_context_tokens: int
    block_size: int
    num_blocks: int
    num_parameters: int
    weight_bytes: int
    device: str  # "cpu", "cuda:0 NVIDIA H200"
    dtype: str  # of the arithmetic: "float32", "bfloat16"
    num_threads: int
    # True if neither the cut of a sequence into chunks nor the rest of the batch changes a bit of
    # a token's logits. The prefix cache needs it, since without it a hit would change answers. A
    # chunk may then read what others of its batch write, unless all are single tokens.
    has_fixed_arithmetic: bool = False
    is_portable: bool = False  # the same bits on every machine, with any number of threads
    note: str | None = None  # what an operator should know about it; the banner shows it


class Runner(Protocol):
    """Computes batches, on the engine thread only. Keys and values live in it, in blocks."""

    @property
    def info(self) -> RunnerInfo: ...

    def forward(self, batch: Batch) -> list[ChunkOutput]:
        """Compute one output a chunk, in order, and cache keys and values of every token."""

    def weigh(self, logits: FloatArray, peak: float, temperature: float) -> DoubleArray:
        """Return e^((logit - peak) / temperature) of each logit; none is above the peak."""

    def release(self, sequence_id: int) -> None:
        """Forget what is kept for a sequence outside the block cache; ignore unknown ids."""
