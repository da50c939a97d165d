"""A small model on a gated hub."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.release.fake_hub import FakeHub, serving

INDEX = {
    "metadata": {"total_size": 0},
    "weight_map": {
        "a": "model-00001-of-00002.safetensors",
        "b": "model-00002-of-00002.safetensors",
    },
}


def write_repository(root: Path) -> None:
    """The files of a repository as they are on the Hub, those that nobody should fetch included."""
    noise = random.Random(7)
    root.mkdir()
    (root / "config.json").write_text(
        json.dumps({"architectures": ["LlamaForCausalLM"], "model_type": "llama"})
    )
    (root / "tokenizer.json").write_text("{}")
    (root / "tokenizer_config.json").write_text("{}")
    (root / "README.md").write_text(
        "---\nlicense: apache-2.0\npipeline_tag: text-generation\n---\n"
    )
    (root / "LICENSE.txt").write_text("You may.")
    (root / "model.safetensors.index.json").write_text(json.dumps(INDEX))
    (root / "model-00001-of-00002.safetensors").write_bytes(noise.randbytes(3_000_000))
    (root / "model-00002-of-00002.safetensors").write_bytes(noise.randbytes(200_000))
    (root / "consolidated.safetensors").write_bytes(b"another form of the same")
    (root / "pytorch_model.bin").write_bytes(b"a pickle")
    (root / "pytorch_model.bin.index.json").write_text("{}")
    (root / "modeling_tiny.py").write_text("raise SystemExit")
    (root / ".gitattributes").write_text("*.safetensors filter=lfs")


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[FakeHub]:
    root = tmp_path / "repository"
    write_repository(root)
    with serving(FakeHub(root)) as running:
        yield running
