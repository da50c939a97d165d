"""Decides how much of the machine the engine takes: device, threads and cache size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from appliance.errors import SettingsError, StartupError

BLOCK_SIZE = 16  # the native kernels read keys and values in tiles of as many tokens
DEFAULT_CONTEXT_TOKENS = 2048  # for a model that names no limit
ELEMENT_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}

CACHE_BYTES_IF_UNKNOWN = 2**30  # where the system does not report its memory
MIN_CACHE_TOKENS = 64

MAX_THREADS_PER_CORE = 4
MAX_THREADS_ANYWHERE = 16  # allowed on the smallest machine, for replicas that must agree

# How config.json files spell what a cache is made of.
LAYER_NAMES = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
HEAD_NAMES = ("num_attention_heads", "n_head", "n_heads", "num_heads")
KV_HEAD_NAMES = ("num_key_value_heads", "num_kv_heads", "n_head_kv", "multi_query_group_num")
WIDTH_NAMES = ("hidden_size", "n_embd", "d_model", "dim")
# Of a configuration that spells it otherwise: a model of 7 billion parameters has no more.
CACHE_VALUES_IF_UNKNOWN = 2 * 32 * 32 * 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What the settings and the model demand of the machine."""

    model_context_tokens: int | None  # None: the model names no limit
    max_context_tokens: int | None
    max_sequences: int
    kv_cache_tokens: int | None  # None: as many as fit
    num_cache_values: int  # of one token, over all layers
    weight_bytes: int
    dtype: str  # of the cache

    @property
    def token_bytes(self) -> int:
        return self.num_cache_values * ELEMENT_BYTES[self.dtype]

    @property
    def context_tokens(self) -> int:
        """Return the limit of one request: the model's, or a smaller one from the settings."""
        limit = self.model_context_tokens or DEFAULT_CONTEXT_TOKENS
        return min(self.max_context_tokens or limit, limit)


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """What one request and the cache may hold. `wanted_tokens` is a context that does not fit."""

    context_tokens: int
    cache_tokens: int
    wanted_tokens: int | None = None

    @property
    def num_blocks(self) -> int:
        return -(-self.cache_tokens // BLOCK_SIZE)


def fit(demand: Demand, free_bytes: int | None, cache_share: float = 0.25) -> Size:
    """Fit all contexts, or what a share of memory allows; `free_bytes` is before the weights."""
    context = demand.context_tokens
    if demand.kv_cache_tokens is not None:
        return Size(context_tokens=context, cache_tokens=demand.kv_cache_tokens)
    room = CACHE_BYTES_IF_UNKNOWN
    if free_bytes is not None:
        room = int(max(free_bytes - demand.weight_bytes, 0) * cache_share)
    fitting = max(room // demand.token_bytes // BLOCK_SIZE * BLOCK_SIZE, MIN_CACHE_TOKENS)
    if fitting < context:
        return Size(context_tokens=fitting, cache_tokens=fitting, wanted_tokens=context)
    return Size(context_tokens=context, cache_tokens=min(context * demand.max_sequences, fitting))


def weight_bytes(num_parameters: int, dtype: str) -> int:
    return num_parameters * ELEMENT_BYTES[dtype]


def check_room(demand: Demand, free_bytes: int | None, option: str = "--kv-cache-tokens") -> None:
    """Refuse a cache that is allocated at once and larger than free memory."""
    size_bytes = (demand.kv_cache_tokens or 0) * demand.token_bytes
    if free_bytes is not None and size_bytes > free_bytes:
        most = free_bytes // demand.token_bytes
        raise SettingsError(
            f"{option} is {demand.kv_cache_tokens}, which takes {size_bytes / 1e9:.1f} GB;"
            f" {free_bytes / 1e9:.1f} GB are free, enough for {most} tokens and no weights."
        )


def estimate_cache_values(config: Mapping[str, object]) -> int:
    """Count keys and values of one token, from the config.json of a model that is not native."""
    inner = config.get("text_config")
    if isinstance(inner, Mapping):
        config = {**config, **inner}
    layers, heads = _count(config, LAYER_NAMES), _count(config, HEAD_NAMES)
    width = _count(config, WIDTH_NAMES)
    if layers is None or heads is None or width is None:
        return CACHE_VALUES_IF_UNKNOWN
    kv_heads = 1 if config.get("multi_query") is True else _count(config, KV_HEAD_NAMES) or heads
    head_dim = _count(config, ("head_dim",)) or -(-width // heads)
    return 2 * layers * kv_heads * head_dim


def _count(config: Mapping[str, object], names: tuple[str, ...]) -> int | None:
    for name in names:
        value = config.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return None


def choose_device(wanted: str, option: str = "--device", *, has_cuda: bool) -> str:
    if wanted == "cuda" and not has_cuda:
        raise SettingsError(
            f"{option} is cuda and torch finds no CUDA device. Install the CUDA lock with "
            f"make serve GPU=1 and check the driver with nvidia-smi, or use {option} cpu."
        )
    return "cuda:0" if has_cuda and wanted != "cpu" else "cpu"


def choose_threads(wanted: int | None, num_cores: int, option: str = "--threads") -> int:
    """Return the wanted number, or the cores; torch crashes if a thread cannot start."""
    limit = max(num_cores * MAX_THREADS_PER_CORE, MAX_THREADS_ANYWHERE)
    if wanted is not None and wanted > limit:
        raise SettingsError(
            f"{option} is {wanted}; with {num_cores} cores to run on it must be at most {limit}."
        )
    return wanted or num_cores


@contextmanager
def refused_without_memory() -> Iterator[None]:
    """Turn runners' out-of-memory errors into one that says what to do."""
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:
        words = str(error).lower()
        if not isinstance(error, MemoryError) and "memory" not in words and "alloc" not in words:
            raise
        raise StartupError(
            "There is not enough memory for the model and its key-value cache. Lower "
            "--kv-cache-tokens or --max-context-tokens, or take a smaller model."
        ) from error
