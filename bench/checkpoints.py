"""Random-weight Llama checkpoints of three sizes, the same bytes wherever they are made."""

from __future__ import annotations

import hashlib
import json
import shutil
import string
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from appliance.models.directory import embedded_model_path
from bench.cache import cache_dir

VERSION = 1  # raise it when the bytes change
SPECIAL_TOKENS = ("<|begin|>", "<|end|>", "<|pad|>")
NUM_BYTES = 256
CHUNK_VALUES = 1 << 24  # random numbers made at a time
CHAT_TEMPLATE = "{% for message in messages %}{{ message.content }}{% endfor %}"
EMBEDDED = "embedded"

Bytes = NDArray[np.uint16]


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes of a Llama; the output matrix is not tied to the embedding."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_heads

    def tensors(self) -> dict[str, tuple[int, ...]]:
        hidden, inner = self.hidden_size, self.intermediate_size
        kv_size = self.num_kv_heads * self.head_dim
        shapes: dict[str, tuple[int, ...]] = {
            "model.embed_tokens.weight": (self.vocab_size, hidden),
            "lm_head.weight": (self.vocab_size, hidden),
            "model.norm.weight": (hidden,),
        }
        for index in range(self.num_layers):
            layer = f"model.layers.{index}"
            shapes |= {
                f"{layer}.input_layernorm.weight": (hidden,),
                f"{layer}.post_attention_layernorm.weight": (hidden,),
                f"{layer}.self_attn.q_proj.weight": (hidden, hidden),
                f"{layer}.self_attn.k_proj.weight": (kv_size, hidden),
                f"{layer}.self_attn.v_proj.weight": (kv_size, hidden),
                f"{layer}.self_attn.o_proj.weight": (hidden, hidden),
                f"{layer}.mlp.gate_proj.weight": (inner, hidden),
                f"{layer}.mlp.up_proj.weight": (inner, hidden),
                f"{layer}.mlp.down_proj.weight": (hidden, inner),
            }
        return shapes


SHAPES = {
    "S": Shape(4096, 288, 768, 6, 6, 6),
    "M": Shape(32000, 768, 2048, 12, 12, 4),
    "L": Shape(32000, 2048, 5632, 22, 32, 4),
}


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model directory, and how much of it a token reads."""

    name: str
    path: Path
    num_parameters: int
    num_read_parameters: int  # all but the rows of the embedding that a token does not look up
    vocab_size: int

    def num_bytes(self, bits: float) -> float:
        """Of all weights, the matrices in so many bits, the embedding as stored unless tied."""
        embedding = self.num_parameters - self.num_read_parameters
        return self.num_read_parameters * bits / 8 + embedding * 2

    def digest(self) -> str:
        with (self.path / "model.safetensors").open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


def open_checkpoint(name: str) -> Checkpoint:
    """The checkpoint of that name, made in the cache folder if it is not there yet."""
    path = embedded_model_path() if name == EMBEDDED else _make(name, SHAPES[name])
    config = json.loads((path / "config.json").read_text())
    sizes = {tensor: _size(shape) for tensor, shape in _tensor_shapes(path).items()}
    total = sum(sizes.values())
    embedding = 0 if config["tie_word_embeddings"] else sizes["model.embed_tokens.weight"]
    return Checkpoint(name, path, total, total - embedding, config["vocab_size"])


def _tensor_shapes(path: Path) -> dict[str, list[int]]:
    with (path / "model.safetensors").open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return {name: entry["shape"] for name, entry in header.items() if name != "__metadata__"}


def _size(shape: tuple[int, ...] | list[int]) -> int:
    return int(np.prod(shape))


def _make(name: str, shape: Shape) -> Path:
    """Written beside its place and moved there whole."""
    target = cache_dir("checkpoints") / f"{name}-v{VERSION}"
    if target.exists():
        return target
    print(f"  making checkpoint {name} in {target}", flush=True)
    building = target.with_name(f".{target.name}.partial")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir()
    _write_json(building / "config.json", _config(shape))
    _write_json(building / "generation_config.json", {"bos_token_id": 0, "eos_token_id": 1})
    _write_json(building / "tokenizer.json", _tokenizer(shape.vocab_size))
    _write_json(building / "tokenizer_config.json", _tokenizer_config())
    _write_weights(building / "model.safetensors", shape)
    building.rename(target)
    return target


def _config(shape: Shape) -> dict[str, object]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "head_dim": shape.head_dim,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "mlp_bias": False,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "vocab_size": shape.vocab_size,
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.intermediate_size,
        "num_hidden_layers": shape.num_layers,
        "num_attention_heads": shape.num_heads,
        "num_key_value_heads": shape.num_kv_heads,
        "max_position_embeddings": 2048,
        "rope_theta": 10000.0,
        "rms_norm_eps": 1e-5,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 2,
    }


def _write_weights(path: Path, shape: Shape) -> None:
    """bfloat16; norms of one, the rest small, the same seed always."""
    random = np.random.Generator(np.random.PCG64(1))
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name, dims in shape.tensors().items():
        size_bytes = 2 * _size(dims)
        offsets = [position, position + size_bytes]
        header[name] = {"dtype": "BF16", "shape": list(dims), "data_offsets": offsets}
        position += size_bytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, dims in shape.tensors().items():
            for values in _values(random, name, dims):
                file.write(values.tobytes())


def _values(random: np.random.Generator, name: str, dims: tuple[int, ...]) -> Iterator[Bytes]:
    """A tensor piece by piece, as the upper halves of its floats."""
    num_values = _size(dims)
    if name.endswith("norm.weight"):
        yield _to_bfloat16(np.ones(num_values, np.float32))
        return
    # A greedy choice never falls on a row of zeros, as some other logit is above zero: so no answer
    # of these models ends early or holds half a character, and every server writes every token.
    num_silent = (len(SPECIAL_TOKENS) + NUM_BYTES) * dims[-1] if name == "lm_head.weight" else 0
    for start in range(0, num_values, CHUNK_VALUES):
        count = min(CHUNK_VALUES, num_values - start)
        values = random.standard_normal(count, dtype=np.float32) * np.float32(0.02)
        values[: max(num_silent - start, 0)] = 0
        yield _to_bfloat16(values)


def _to_bfloat16(values: NDArray[np.float32]) -> Bytes:
    return (values.view(np.uint32) >> 16).astype(np.uint16)


def _tokenizer(vocab_size: int) -> dict[str, object]:
    """Byte pairs as in GPT-2: every word of two letters, with a space before it, is one token."""
    merges = list(islice(_merges(), vocab_size - len(SPECIAL_TOKENS) - NUM_BYTES))
    tokens = [*SPECIAL_TOKENS, *_byte_alphabet(), *("".join(pair) for pair in merges)]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": index,
                "content": token,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for index, token in enumerate(SPECIAL_TOKENS)
        ],
        "normalizer": None,
        "pre_tokenizer": {**byte_level, "use_regex": True},
        "post_processor": None,
        "decoder": {**byte_level, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: index for index, token in enumerate(tokens)},
            "merges": [list(pair) for pair in merges],
        },
    }


def _tokenizer_config() -> dict[str, object]:
    begin, end, pad = SPECIAL_TOKENS
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": begin,
        "eos_token": end,
        "pad_token": pad,
        "add_bos_token": False,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 2048,
        "chat_template": CHAT_TEMPLATE,
    }


def _merges() -> Iterator[tuple[str, str]]:
    letters = string.ascii_lowercase
    pairs = ["".join(pair) for pair in product(letters, repeat=2)]
    yield from product(letters, repeat=2)
    yield from (("Ġ", pair) for pair in pairs)
    yield from product(pairs, letters)
    yield from product(pairs, pairs)


def _byte_alphabet() -> list[str]:
    """The character that stands for each byte in GPT-2's byte-level vocabularies."""
    shown = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    hidden = iter(range(0x100, 0x200))
    return [chr(byte) if byte in shown else chr(next(hidden)) for byte in range(NUM_BYTES)]


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
