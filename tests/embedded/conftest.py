"""The shipped model, its tokenizer and the generator it was trained from, loaded once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from tokenizers import Tokenizer

from training.export import EMBEDDED_DIRECTORY
from training.llama import Llama, load_model


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
