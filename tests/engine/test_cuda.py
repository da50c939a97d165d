"""When a function is called, captured and replayed; CUDA itself is a stand-in here."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
import torch

from appliance.engine.torch.cuda import GraphPool

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is asked of CUDA, in order."""
    said: list[str] = []

    class Stream:
        def wait_stream(self, other: Stream) -> None:
            said.append("wait")

    class Graph:
        def replay(self) -> None:
            said.append("replay")

    @contextmanager
    def capture(graph: Graph, *, pool: object, capture_error_mode: str) -> Iterator[None]:
        said.append(f"capture into {pool}")
        yield
        said.append("captured")

    @contextmanager
    def aside(stream: Stream) -> Iterator[None]:
        yield

    for name, value in {
        "graph_pool_handle": lambda: "the pool",
        "Stream": Stream,
        "current_stream": Stream,
        "stream": aside,
        "CUDAGraph": Graph,
        "graph": capture,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    return said


def test_on_a_cpu_a_function_stays_what_it_is() -> None:
    pool = GraphPool(torch.device("cpu"))
    assert pool.wrap(print) is print
    assert pool.num_replays == 0


def test_on_cuda_the_first_call_warms_up_and_captures_and_every_call_replays(
    said: list[str],
) -> None:
    pool = GraphPool(torch.device("cuda"))
    function = pool.wrap(lambda: said.append("compute"))
    assert said == []
    function()
    first = ["wait", "compute", "wait", "capture into the pool", "compute", "captured", "replay"]
    assert said == first
    function()
    assert said == [*first, "replay"]
    assert pool.num_replays == 2
