"""A second model in the process that computes without a pause, on threads of its own."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.engine.native_harness import native_runner
from tests.engine.runner_harness import Sequences, random_tokens, run_chunks

if TYPE_CHECKING:
    from pathlib import Path


@contextmanager
def busy_neighbour(path: Path, quantization: str = "int8") -> Iterator[None]:
    """While inside, a runner of the model at `path` reads a prompt again and again."""
    runner = native_runner(path, quantization=quantization, num_threads=2)
    sequence = Sequences().make(random_tokens(48))
    first = run_chunks(runner, sequence, [48]).tobytes()
    has_ended = threading.Event()
    differing: list[int] = []

    def compute() -> None:
        num_passes = 0
        while not has_ended.is_set():
            num_passes += 1
            if run_chunks(runner, sequence, [48]).tobytes() != first:
                differing.append(num_passes)

    thread = threading.Thread(target=compute, name="neighbour", daemon=True)
    thread.start()
    try:
        yield
    finally:
        has_ended.set()
        thread.join(60)
    assert differing == [], "the neighbour's own bits changed"
