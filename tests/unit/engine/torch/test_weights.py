"""Tensors come out of their files bit for bit, mapped where that is possible."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from appliance.engine.model.tensor_file import TensorLocation
from appliance.engine.torch.weights import Weights, map_tensor

if TYPE_CHECKING:
    from pathlib import Path

DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
SHAPE = (7, 5)


def store(path: Path, dtype: str, *, start: int) -> tuple[torch.Tensor, TensorLocation]:
    """A random tensor at byte `start` of a file that goes on after it."""
    tensor = torch.randn(SHAPE).to(DTYPES[dtype])
    content = tensor.view(torch.uint8).numpy().tobytes()
    path.write_bytes(b"x" * start + content + b"yz")
    end = start + len(content)
    return tensor, TensorLocation(path=path, dtype=dtype, shape=SHAPE, start=start, end=end)


@pytest.mark.parametrize("start", [0, 8, 4093, 4096, 12_344])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_tensor_is_read_wherever_it_lies(dtype: str, start: int, tmp_path: Path) -> None:
    tensor, location = store(tmp_path / "weights", dtype, start=start)
    mapped = map_tensor(location)
    assert mapped.dtype == tensor.dtype
    assert torch.equal(mapped, tensor)


def test_an_aligned_tensor_is_the_file_itself(tmp_path: Path) -> None:
    _, location = store(tmp_path / "weights", "F32", start=8)
    mapped = map_tensor(location)
    with location.path.open("r+b") as file:
        file.seek(8)
        file.write(torch.tensor([42.0]).numpy().tobytes())
    assert mapped[0, 0] == 42.0


def test_writing_to_a_tensor_never_reaches_the_file(tmp_path: Path) -> None:
    _, location = store(tmp_path / "weights", "F32", start=8)
    before = location.path.read_bytes()
    map_tensor(location).zero_()
    assert location.path.read_bytes() == before


def test_an_empty_tensor_needs_no_bytes(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(b"12345678")
    location = TensorLocation(path=path, dtype="F16", shape=(0, 4), start=8, end=8)
    assert map_tensor(location).shape == (0, 4)


def test_weights_are_cast_once_asked_for(tmp_path: Path) -> None:
    tensor, location = store(tmp_path / "weights", "F16", start=16)
    weights = Weights({"a": location}, torch.device("cpu"), torch.float32)
    assert torch.equal(weights.load("a"), tensor.float())
    assert weights.load_optional("b") is None
    loaded = weights.load_optional("a")
    assert loaded is not None
    assert loaded.dtype == torch.float32
