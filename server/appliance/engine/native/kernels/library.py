"""Declares the native library to Python: its structures, functions and variants."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import POINTER, c_char_p, c_double, c_float, c_int32, c_size_t, c_void_p
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

COLUMN_TILE = 32
KEY_TILE = 16
WEIGHT_KINDS = {"bf16": 0, "int8": 1, "int4": 2}
VARIANTS = ("avx512", "avx2", "neon", "scalar")  # best first

ERRORS = {
    1: "there is no memory left for a batch of this size",
    2: "a token id is not in the vocabulary",
    3: "a block id is not in the cache",
    4: "a chunk does not fit its blocks or its batch",
}


class Weight(ctypes.Structure):
    """`weight_t`: a packed matrix of n outputs and k inputs."""

    _fields_ = (("kind", c_int32), ("n", c_int32), ("k", c_int32), ("data", c_void_p))


class Layer(ctypes.Structure):
    """`layer_t`: one decoder layer; a null pointer where the model has no such tensor."""

    _fields_ = (
        *((name, Weight) for name in ("qkv", "out", "gate_up", "down")),
        *((name, c_void_p) for name in ("attention_norm", "mlp_norm")),
        *((name, c_void_p) for name in ("qkv_bias", "out_bias", "gate_up_bias", "down_bias")),
        *((name, c_void_p) for name in ("q_norm", "k_norm")),
        ("window", c_int32),
    )


class Model(ctypes.Structure):
    """`model_t`: sizes, and pointers to all arrays."""

    _fields_ = (
        *(
            (name, c_int32)
            for name in (
                "vocab_size",
                "hidden_size",
                "intermediate_size",
                "num_layers",
                "num_heads",
                "num_kv_heads",
                "head_dim",
                "block_size",
                "num_blocks",
            )
        ),
        ("rms_norm_eps", c_float),
        *((name, c_void_p) for name in ("embedding", "frequencies", "final_norm")),
        ("head", Weight),
        ("layers", POINTER(Layer)),
        ("cache", c_void_p),
    )


class NativeLibrary:
    """The functions of the shared library; every call releases Python's lock."""

    def __init__(self, path: Path) -> None:
        self.path = path
        library = ctypes.CDLL(str(path))
        self._library = library
        self.weight_size = _declare(library.weight_size, c_size_t, c_int32, c_int32, c_int32)
        self.cache_size = _declare(library.cache_size, c_size_t, POINTER(Model))
        self.pool_create = _declare(library.pool_create, c_void_p, c_int32)
        self.pool_destroy = _declare(library.pool_destroy, None, c_void_p)
        self.workspace_create = _declare(library.workspace_create, c_void_p)
        self.workspace_destroy = _declare(library.workspace_destroy, None, c_void_p)
        self.pack_weight = _declare(
            library.pack_weight, None, c_void_p, POINTER(Weight), c_void_p, c_void_p
        )
        self.weigh = _declare(library.weigh, None, c_void_p, c_int32, c_double, c_double, c_void_p)
        self._choose = _declare(library.linear_choose, c_int32, c_char_p)
        self._variant = _declare(library.linear_variant, c_char_p)

    @property
    def variant(self) -> str:
        """Return the variant in use: the best that this CPU runs, until another is chosen."""
        name: bytes = self._variant()
        return name.decode()

    def choose_variant(self, name: str) -> bool:
        """Switch every runner to the variant `name`; return False if this CPU lacks it."""
        return bool(self._choose(name.encode()))

    @contextmanager
    def threads(self, count: int) -> Iterator[int]:
        """Keep a pool of threads for the duration of the context."""
        pool = self.pool_create(count)
        if pool is None:
            raise MemoryError("The native kernels could not start their threads.")
        try:
            yield pool
        finally:
            self.pool_destroy(pool)

    def forward_function(self) -> ctypes._NamedFuncPointer:
        """Return the forward pass of the variant in use."""
        function = getattr(self._library, f"forward_{self.variant}")
        return _declare(function, c_int32, *[c_void_p] * 6)


def _declare(
    function: ctypes._NamedFuncPointer, result: type | None, *arguments: type
) -> ctypes._NamedFuncPointer:
    function.restype = result
    function.argtypes = arguments
    return function
