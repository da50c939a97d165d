"""Writes tiny model directories with random weights, whole and valid, to use or to spoil."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from appliance.engine.model.config import expected_tensors, parse_model_config

ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
SPECIAL_TOKENS = ("<|begin|>", "<|end|>", "<|pad|>")
VOCAB_SIZE = 256 + len(SPECIAL_TOKENS) + 5  # a padded embedding, as many models have
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ message.role }}: {{ message.content }}\n"
    "{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
)

Array = NDArray[np.float32]


def write_model(
    directory: Path,
    *,
    model_type: str = "llama",
    dtype: str = "F32",
    seed: int = 0,
    **config: object,
) -> Path:
    """A whole model of the Llama family; `config` overrides fields of config.json."""
    directory.mkdir(parents=True, exist_ok=True)
    values = model_config(model_type, **config)
    write_json(directory / "config.json", values)
    write_weights(directory / "model.safetensors", random_weights(values, seed=seed), dtype=dtype)
    write_tokenizer(directory)
    write_json(
        directory / "generation_config.json",
        {"bos_token_id": 256, "eos_token_id": [257], "temperature": 0.7, "top_p": 0.9},
    )
    return directory


def model_config(model_type: str = "llama", **config: object) -> dict[str, object]:
    return {
        "architectures": [ARCHITECTURES[model_type]],
        "model_type": model_type,
        "vocab_size": VOCAB_SIZE,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "hidden_act": "silu",
        "max_position_embeddings": 256,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "bos_token_id": 256,
        "eos_token_id": 257,
        **config,
    }


def random_weights(config: Mapping[str, object], *, seed: int = 0) -> dict[str, Array]:
    """Weights of about the size that training leaves: norms near one, the rest small."""
    native = parse_model_config(config)
    assert native is not None
    random = np.random.default_rng(seed)
    weights: dict[str, Array] = {}
    for name, shape in expected_tensors(native).items():
        noise = random.standard_normal(shape, dtype=np.float32)
        weights[name] = 1 + 0.1 * noise if name.endswith("norm.weight") else 0.1 * noise
    return weights


def write_weights(path: Path, weights: Mapping[str, Array], *, dtype: str = "F32") -> None:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    parts: list[bytes] = []
    position = 0
    for name, array in weights.items():
        part = encode_array(array, dtype)
        header[name] = {
            "dtype": dtype,
            "shape": list(array.shape),
            "data_offsets": [position, position + len(part)],
        }
        position += len(part)
        parts.append(part)
    write_safetensors(path, header, b"".join(parts))


def encode_array(array: Array, dtype: str) -> bytes:
    """Little-endian bytes; BF16 keeps the upper half of each float."""
    if dtype == "BF16":
        return (array.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()
    return array.astype({"F16": "<f2", "F32": "<f4", "F64": "<f8"}[dtype]).tobytes()


def write_safetensors(path: Path, header: object, data: bytes) -> None:
    """A safetensors file from a header, right or wrong, and its data."""
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def read_safetensors(path: Path) -> tuple[dict[str, dict[str, object]], bytes]:
    """Header without metadata, and data: what a test spoils and writes back."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header.pop("__metadata__", None)
    return header, content[8 + length :]


def write_shards(directory: Path, num_shards: int = 2) -> None:
    """Split model.safetensors into shards with an index."""
    whole = directory / "model.safetensors"
    header, data = read_safetensors(whole)
    whole.unlink()
    weight_map: dict[str, str] = {}
    for shard in range(num_shards):
        file_name = f"model-{shard + 1:05}-of-{num_shards:05}.safetensors"
        names = list(header)[shard::num_shards]
        shard_header: dict[str, object] = {}
        shard_data = b""
        for name in names:
            start, end = _offsets(header[name])
            offsets = [len(shard_data), len(shard_data) + end - start]
            shard_header[name] = {**header[name], "data_offsets": offsets}
            shard_data += data[start:end]
            weight_map[name] = file_name
        write_safetensors(directory / file_name, shard_header, shard_data)
    write_json(directory / "model.safetensors.index.json", {"weight_map": weight_map})


def _offsets(entry: Mapping[str, object]) -> tuple[int, int]:
    offsets = entry["data_offsets"]
    assert isinstance(offsets, list)
    return offsets[0], offsets[1]


def write_tokenizer(directory: Path) -> None:
    """A byte-level tokenizer: every byte is a token, and there are three special ones."""
    write_json(directory / "tokenizer.json", byte_tokenizer())
    write_json(
        directory / "tokenizer_config.json",
        {
            "add_bos_token": False,
            "bos_token": "<|begin|>",
            "eos_token": "<|end|>",
            "pad_token": {"content": "<|pad|>", "special": True},
            "chat_template": CHAT_TEMPLATE,
        },
    )


def byte_tokenizer() -> dict[str, object]:
    added = [
        {
            "id": 256 + index,
            "content": content,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for index, content in enumerate(SPECIAL_TOKENS)
    ]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {
            "type": "ByteLevel",
            "add_prefix_space": False,
            "trim_offsets": True,
            "use_regex": True,
        },
        "post_processor": None,
        "decoder": {
            "type": "ByteLevel",
            "add_prefix_space": False,
            "trim_offsets": True,
            "use_regex": True,
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {character: byte for byte, character in enumerate(byte_characters())},
            "merges": [],
        },
    }


def byte_characters() -> list[str]:
    """The character that stands for each byte: itself if it can be seen, else one from 256 up."""
    visible = {*range(33, 127), *range(161, 173), *range(174, 256)}
    hidden = [byte for byte in range(256) if byte not in visible]
    stand_ins = {byte: chr(256 + index) for index, byte in enumerate(hidden)}
    return [stand_ins.get(byte, chr(byte)) for byte in range(256)]


def write_lock(directory: Path, path: Path) -> None:
    """Pin every file of `directory` in the lock at `path`."""
    files = {
        file.name: {
            "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
            "size": file.stat().st_size,
        }
        for file in directory.iterdir()
        if file != path
    }
    write_json(path, {"files": files})


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


def change_json(path: Path, **changes: object) -> None:
    """Set keys of the object in a JSON file, which may not exist yet."""
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    write_json(path, {**found, **changes})
