"""Runs a forward pass in one call into C: the same bits in any batch, without torch."""

from __future__ import annotations

import ctypes
import math
import mmap
import weakref
from array import array
from typing import TYPE_CHECKING

import numpy as np

from appliance.engine.model.config import RopeConfig, RopeKind, expected_tensors
from appliance.engine.native.kernels.library import ERRORS, KEY_TILE, Layer, Model, NativeLibrary
from appliance.engine.native.packing import PackedWeights, load_packed
from appliance.engine.native.stored_tensors import Floats, load_vector, map_tensor, to_bfloat16
from appliance.engine.runner import RunnerInfo
from appliance.engine.sequence import Batch, ChunkOutput, DoubleArray, FloatArray, LogitRows

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from appliance.engine.model.config import ModelConfig
    from appliance.engine.model.tensor_file import TensorLocation


class NativeRunner:
    """Computes batches of a model of the Llama family on a CPU; kernels/forward.h has the law."""

    def __init__(  # noqa: PLR0913 - called once, by name
        self,
        library: NativeLibrary,
        config: ModelConfig,
        tensors: Mapping[str, TensorLocation],
        *,
        block_size: int,
        num_blocks: int,
        num_threads: int,
        quantization: str = "none",
        cache_dir: Path | None = None,
        weights_id: str | None = None,
    ) -> None:
        if block_size % KEY_TILE:
            raise ValueError(f"blocks of {block_size} tokens: the kernels need multiples of 16")
        self._library = library
        self._pool = _checked(library.pool_create(num_threads))
        weakref.finalize(self, library.pool_destroy, self._pool).atexit = False
        self._workspace = _checked(library.workspace_create())
        weakref.finalize(self, library.workspace_destroy, self._workspace).atexit = False
        self._packed = load_packed(
            library,
            self._pool,
            config,
            tensors,
            quantization=quantization,
            cache_dir=cache_dir,
            weights_id=weights_id,
        )
        self._tables = _Tables(config, tensors, self._packed)
        model = self._tables.describe(config, block_size, num_blocks)
        self._cache = mmap.mmap(-1, library.cache_size(ctypes.byref(model)))
        model.cache = np.frombuffer(self._cache, np.uint8).ctypes.data
        self._model = model
        self._model_address = ctypes.addressof(model)
        self._forward = library.forward_function()
        num_parameters = sum(math.prod(shape) for shape in expected_tensors(config).values())
        self._info = RunnerInfo(
            name="native",
            vocab_size=config.vocab_size,
            max_context_tokens=config.max_context_tokens,
            block_size=block_size,
            num_blocks=num_blocks,
            num_parameters=num_parameters,
            weight_bytes=self._packed.size_bytes + self._tables.size_bytes,
            device="cpu",
            dtype="bfloat16" if quantization == "none" else quantization,
            num_threads=num_threads,
            has_fixed_arithmetic=True,
            is_portable=True,
        )

    @property
    def info(self) -> RunnerInfo:
        return self._info

    def forward(self, batch: Batch) -> list[ChunkOutput]:
        block_size, hidden_size = self._info.block_size, self._model.hidden_size
        fields, token_ids, blocks = [len(batch.chunks), 0], [], []
        counts: list[int] = []
        num_pooled = 0
        for chunk in batch.chunks:
            sequence, start, length = chunk.sequence, chunk.start, chunk.length
            end = start + length
            table = sequence.block_table[: -(-end // block_size)]
            rows = chunk.rows
            count = 1 if rows is LogitRows.LAST else 0 if rows is LogitRows.NONE else length
            counts.append(count)
            num_pooled += sequence.is_pooled
            fields += (start, length, count, sequence.is_pooled, len(table))
            token_ids += chunk.token_ids
            blocks += table
        fields[1] = len(token_ids)
        data = array("i", fields + token_ids + blocks)
        logits = np.empty((sum(counts), self._info.vocab_size), np.float32)
        sums = np.empty((num_pooled, hidden_size), np.float64)
        error = self._forward(
            self._model_address,
            self._pool,
            self._workspace,
            data.buffer_info()[0],
            logits.ctypes.data,
            sums.ctypes.data,
        )
        if error:
            raise RuntimeError(f"The batch was not computed: {ERRORS[error]}.")
        outputs, row, pooled = [], 0, 0
        for chunk, count in zip(batch.chunks, counts, strict=True):
            is_pooled = chunk.sequence.is_pooled
            outputs.append(
                ChunkOutput(
                    logits[row : row + count] if count else None,
                    sums[pooled] if is_pooled else None,
                )
            )
            row += count
            pooled += is_pooled
        return outputs

    def weigh(self, logits: FloatArray, peak: float, temperature: float) -> DoubleArray:
        """Use the library's own exponential: the same bits on every CPU."""
        logits = np.ascontiguousarray(logits)
        weights = np.empty(len(logits))
        self._library.weigh(logits.ctypes.data, len(logits), peak, temperature, weights.ctypes.data)
        return weights

    def release(self, sequence_id: int) -> None:
        """Do nothing: all state is in the block cache."""


class _Tables:
    """Holds the arrays that the model needs beside its matrices, for C to point into."""

    def __init__(
        self, config: ModelConfig, tensors: Mapping[str, TensorLocation], packed: PackedWeights
    ) -> None:
        self._tensors = tensors
        self._packed = packed
        self._kept: list[NDArray[np.generic]] = []
        self.layers = (Layer * config.num_layers)(
            *(self._layer(config, index) for index in range(config.num_layers))
        )

    @property
    def size_bytes(self) -> int:
        return sum(values.nbytes for values in self._kept)

    def describe(self, config: ModelConfig, block_size: int, num_blocks: int) -> Model:
        stored = self._tensors["model.embed_tokens.weight"]
        return Model(
            vocab_size=config.vocab_size,
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            num_layers=config.num_layers,
            num_heads=config.num_heads,
            num_kv_heads=config.num_kv_heads,
            head_dim=config.head_dim,
            block_size=block_size,
            num_blocks=num_blocks,
            rms_norm_eps=config.rms_norm_eps,
            embedding=self._keep(to_bfloat16(map_tensor(stored), stored.dtype)),
            frequencies=self._keep(rotary_frequencies(config.rope, config.head_dim)),
            final_norm=self._vector("model.norm.weight"),
            head=self._packed.weight("head"),
            layers=self.layers,
        )

    def _layer(self, config: ModelConfig, index: int) -> Layer:
        attention, mlp = (f"model.layers.{index}.{part}" for part in ("self_attn", "mlp"))
        return Layer(
            qkv=self._packed.weight(f"{index}.qkv"),
            out=self._packed.weight(f"{index}.out"),
            gate_up=self._packed.weight(f"{index}.gate_up"),
            down=self._packed.weight(f"{index}.down"),
            attention_norm=self._vector(f"model.layers.{index}.input_layernorm.weight"),
            mlp_norm=self._vector(f"model.layers.{index}.post_attention_layernorm.weight"),
            qkv_bias=self._vector(*(f"{attention}.{name}_proj.bias" for name in "qkv")),
            out_bias=self._vector(f"{attention}.o_proj.bias"),
            gate_up_bias=self._vector(f"{mlp}.gate_proj.bias", f"{mlp}.up_proj.bias"),
            down_bias=self._vector(f"{mlp}.down_proj.bias"),
            q_norm=self._vector(f"{attention}.q_norm.weight"),
            k_norm=self._vector(f"{attention}.k_norm.weight"),
            window=config.windows[index] or 0,
        )

    def _vector(self, *names: str) -> int | None:
        """Join the vectors; return None where the model has none."""
        if names[0] not in self._tensors:
            return None
        return self._keep(np.concatenate([load_vector(self._tensors, name) for name in names]))

    def _keep(self, values: NDArray[np.generic]) -> int:
        self._kept.append(values)
        return values.ctypes.data


def rotary_frequencies(rope: RopeConfig, head_dim: int) -> Floats:
    """Compute radians a position for each pair of dimensions, [D / 2], in double precision."""
    exact = (rope.theta ** -(i / head_dim) for i in range(0, head_dim, 2))
    if rope.kind is RopeKind.LINEAR:
        exact = (frequency / rope.factor for frequency in exact)
    if rope.kind is RopeKind.LLAMA3:
        exact = (_stretch_llama3(frequency, rope) for frequency in exact)
    return np.array(list(exact), np.float32)


def _stretch_llama3(frequency: float, rope: RopeConfig) -> float:
    """Divide slow frequencies by the factor, keep fast ones, blend those between."""
    turns = rope.original_context_tokens * frequency / (2 * math.pi)  # over the context trained on
    span = rope.high_freq_factor - rope.low_freq_factor
    kept_share = min(max((turns - rope.low_freq_factor) / span, 0.0), 1.0)
    return (1 - kept_share) * frequency / rope.factor + kept_share * frequency


def _checked(pointer: int | None) -> int:
    if pointer is None:
        raise MemoryError("The native engine could not start its threads.")
    return pointer
