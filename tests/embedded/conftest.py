"""The shipped model, its tokenizer and the generator it was trained from, loaded once."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest
from tokenizers import Tokenizer

from appliance.models.directory import embedded_model_path

if TYPE_CHECKING:
    from pebble.llama import Llama


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Threads that wait for each other cost a model this small more than they give."""
    if find_spec("torch") is None:  # a part of the tests does without
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def model() -> Llama:
    from pebble.llama import load_model

    return load_model(embedded_model_path())


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(embedded_model_path() / "tokenizer.json"))
