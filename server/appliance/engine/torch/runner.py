"""Runs the Llama family on torch over a paged cache, on a CPU or a CUDA device."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from appliance.engine.runner import RunnerInfo
from appliance.engine.runners.self_check import find_difference
from appliance.engine.sampler import relative_probabilities
from appliance.engine.sequence import (
    Batch,
    Chunk,
    ChunkOutput,
    DoubleArray,
    FloatArray,
    LogitRows,
)
from appliance.engine.torch.attention import KVCache, plan_attention
from appliance.engine.torch.cuda import describe_device
from appliance.engine.torch.llama import LlamaModel
from appliance.engine.torch.tiled_forward import MAX_GRAPH_SPANS, TiledForward
from appliance.engine.torch.weights import Weights

if TYPE_CHECKING:
    from collections.abc import Mapping

    from appliance.engine.model.config import ModelConfig
    from appliance.engine.model.tensor_file import TensorLocation
    from appliance.engine.torch.fixed_attention import FixedShape


class TorchRunner:
    """Computes batches of a model of the Llama family; the reference for any faster runner.

    With a `fixed_shape` every product has that shape, and a row the same bits in any batch. That
    depends on the libraries that torch calls: it is checked here, and claimed where it held.
    """

    def __init__(  # noqa: PLR0913 - called once, by name
        self,
        config: ModelConfig,
        tensors: Mapping[str, TensorLocation],
        *,
        device: str,
        dtype: str,
        block_size: int,
        num_blocks: int,
        num_threads: int,
        fixed_shape: FixedShape | None = None,
    ) -> None:
        torch.set_num_threads(num_threads)
        self._device, self._dtype = torch.device(device), getattr(torch, dtype)
        self._windows = frozenset(config.windows)
        with torch.inference_mode():
            self._model = LlamaModel(config, Weights(tensors, self._device, self._dtype))
            heads = (config.num_kv_heads, config.head_dim)
            num_stored = num_blocks + (fixed_shape is not None)  # one more, for rows that fill up
            shape = (config.num_layers, 2, num_stored, block_size, *heads)
            self._cache = KVCache(torch.zeros(shape, dtype=self._dtype, device=self._device))
            self._tiled = None
            if fixed_shape is not None:
                torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
                torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
                capacity = min(config.max_context_tokens, num_blocks * block_size)
                self._tiled = TiledForward(
                    self._model, self._cache, self._windows, fixed_shape, capacity
                )
        num_parameters = sum(tensor.num_elements for tensor in tensors.values())
        self._info = RunnerInfo(
            name="torch",
            vocab_size=config.vocab_size,
            max_context_tokens=config.max_context_tokens,
            block_size=block_size,
            num_blocks=num_blocks,
            num_parameters=num_parameters,
            weight_bytes=num_parameters * self._dtype.itemsize,
            device=describe_device(self._device),
            dtype=dtype,
            num_threads=num_threads,
        )
        if self._tiled is not None and fixed_shape is not None:
            # More than one span of keys without graphs: so these are compared, too.
            self._tiled.max_graph_spans = 1
            difference = find_difference(self, fixed_shape.span_tokens + fixed_shape.tile_rows)
            self._tiled.max_graph_spans = MAX_GRAPH_SPANS
            self._info = replace(
                self._info, has_fixed_arithmetic=difference is None, note=difference
            )

    @property
    def info(self) -> RunnerInfo:
        return self._info

    @torch.inference_mode()
    def forward(self, batch: Batch) -> list[ChunkOutput]:
        chunks, block_size = batch.chunks, self._info.block_size
        if fresh := [block for chunk in chunks for block in _fresh_blocks(chunk, block_size)]:
            self._cache.clear(self._tensor(fresh))
        if self._tiled is not None:
            return self._collect(chunks, self._tiled.compute_hidden(chunks))
        token_ids = [token_id for chunk in chunks for token_id in chunk.token_ids]
        hidden = self._model.compute_hidden(
            self._tensor(token_ids),
            self._tensor([position for chunk in chunks for position in _positions(chunk)]),
            self._tensor([slot for chunk in chunks for slot in _slots(chunk, block_size)]),
            {
                window: plan_attention(chunks, window, block_size, self._device, self._dtype)
                for window in self._windows
            },
            self._cache,
        )
        return self._collect(chunks, hidden)

    def weigh(self, logits: FloatArray, peak: float, temperature: float) -> DoubleArray:
        return relative_probabilities(logits, peak, temperature)

    def release(self, sequence_id: int) -> None:
        """Do nothing: all state is in the block cache."""

    def _collect(self, chunks: tuple[Chunk, ...], hidden: torch.Tensor) -> list[ChunkOutput]:
        """Compute requested logits in one product, and the sums of pooled chunks."""
        parts = hidden.split([chunk.length for chunk in chunks])
        wanted = [_wanted_rows(chunk, part) for chunk, part in zip(chunks, parts, strict=True)]
        logits = (self._tiled or self._model).compute_logits(torch.cat(wanted)).float().cpu()
        rows = logits.split([len(part) for part in wanted])
        return [_output(*group) for group in zip(chunks, parts, rows, strict=True)]

    def _tensor(self, values: list[int]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.int64, device=self._device)


def _positions(chunk: Chunk) -> range:
    return range(chunk.start, chunk.start + chunk.length)


def _slots(chunk: Chunk, block_size: int) -> list[int]:
    """Return the cache slots of the chunk's tokens."""
    table = chunk.sequence.block_table
    return [table[p // block_size] * block_size + p % block_size for p in _positions(chunk)]


def _fresh_blocks(chunk: Chunk, block_size: int) -> list[int]:
    """Return the blocks whose first token is in this chunk."""
    first = -(-chunk.start // block_size)
    end = -(-(chunk.start + chunk.length) // block_size)
    return chunk.sequence.block_table[first:end]


def _wanted_rows(chunk: Chunk, hidden: torch.Tensor) -> torch.Tensor:
    if chunk.rows is LogitRows.ALL:
        return hidden
    return hidden[-1:] if chunk.rows is LogitRows.LAST else hidden[:0]


def _output(chunk: Chunk, hidden: torch.Tensor, logits: torch.Tensor) -> ChunkOutput:
    hidden_sum = hidden.sum(dim=0, dtype=torch.float64) if chunk.sequence.is_pooled else None
    return ChunkOutput(
        logits=None if chunk.rows is LogitRows.NONE else logits.numpy(),
        hidden_sum=None if hidden_sum is None else hidden_sum.cpu().numpy(),
    )
