"""Handles what is particular to CUDA devices: names, and graphs captured once and replayed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable


def describe_device(device: torch.device) -> str:
    """Name the device with its kind: another kind of GPU is another arithmetic."""
    return (
        f"{device} {torch.cuda.get_device_name(device)}" if device.type == "cuda" else str(device)
    )


class GraphPool:
    """Makes functions over fixed tensors replayable on CUDA; on a CPU they are called as they are.
    What they allocate is in one pool.

    They may share it, as nothing that one allocates is read after it has ended: results are copied
    into tensors from outside.
    """

    def __init__(self, device: torch.device) -> None:
        self.num_replays = 0
        self._handle = torch.cuda.graph_pool_handle() if device.type == "cuda" else None

    def wrap(self, function: Callable[[], None]) -> Callable[[], None]:
        """Return the function, to be captured at its first call where the device can."""
        return function if self._handle is None else _Captured(function, self)

    def capture(self, function: Callable[[], None]) -> torch.cuda.CUDAGraph:
        """Capture the function, after a first call; both compute the same from the same tensors."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            function()  # libraries allocate their workspaces, which a capture must not
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._handle, capture_error_mode="thread_local"):
            function()
        return graph


class _Captured:
    def __init__(self, function: Callable[[], None], pool: GraphPool) -> None:
        self._function, self._pool = function, pool
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self) -> None:
        self._graph = self._graph or self._pool.capture(self._function)
        self._graph.replay()
        self._pool.num_replays += 1
