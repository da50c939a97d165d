"""The shipped model, its tokenizer and the generator it was trained from, loaded once."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

SERVER = Path(__file__).parents[2] / "server"
sys.path.insert(0, str(SERVER))  # `training` is in the repository and not in the wheel

from tokenizers import Tokenizer  # noqa: E402

from training.export import EMBEDDED_DIRECTORY  # noqa: E402
from training.llama import Llama, load_model  # noqa: E402


@pytest.fixture(scope="session")
def model() -> Llama:
    return load_model(EMBEDDED_DIRECTORY)


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(EMBEDDED_DIRECTORY / "tokenizer.json"))
