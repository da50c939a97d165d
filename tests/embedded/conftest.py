"""The shipped model, its tokenizer and the generator it was trained from, loaded once."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

SERVER = Path(__file__).parents[2] / "server"
sys.path.insert(0, str(SERVER))  # `training` is in the repository and not in the wheel

from tokenizers import Tokenizer  # noqa: E402

from training.export import EMBEDDED_DIRECTORY  # noqa: E402
from training.llama import Llama, load_model  # noqa: E402


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Threads that wait for each other cost a model this small more than they give."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def model() -> Llama:
    return load_model(EMBEDDED_DIRECTORY)


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(EMBEDDED_DIRECTORY / "tokenizer.json"))
