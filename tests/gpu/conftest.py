"""What the tests on a CUDA device share; without one each is skipped, and says why."""

from __future__ import annotations

from importlib.util import find_spec

import pytest


def why_not() -> str | None:
    """Why nothing can be computed on a CUDA device here; None if it can."""
    if find_spec("torch") is None:
        return "torch is not installed: make test GPU=1 installs its CUDA build"
    import torch  # noqa: PLC0415 - absent from the lean installation

    if torch.version.cuda is None:
        return f"torch {torch.__version__} is a CPU build: use make test GPU=1"
    if not torch.cuda.is_available():
        return "torch finds no CUDA device"
    return None


@pytest.fixture(scope="session")
def device() -> str:
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    return "cuda:0"
