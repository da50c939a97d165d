"""Our engine as the server wires it, asked without HTTP and without text."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.engine.sequence import SamplingParams
from appliance.metrics import Metrics
from appliance.models.hashing import FileHasher
from appliance.serve.wiring import find_model, load_model
from appliance.settings import load_settings
from bench.workers.timing import Generate, Task, run

if TYPE_CHECKING:
    from appliance.engine.engine import Engine


def load(task: Task) -> Generate:
    settings = load_settings(model_path=Path(task.model), threads=task.num_threads, **task.settings)
    hasher = FileHasher(settings.cache_dir)
    model = find_model(settings, hasher)
    engine = load_model(settings, model, hasher, Metrics()).engine
    return lambda prompts, new_tokens: asyncio.run(_generate(engine, prompts, new_tokens))


async def _generate(engine: Engine, prompts: list[list[int]], new_tokens: int) -> list[list[float]]:
    params = SamplingParams(max_new_tokens=new_tokens, seed=0, temperature=0.0)
    streams = [engine.submit(prompt, params) for prompt in prompts]

    async def read(index: int) -> list[float]:
        return [time.perf_counter() async for _ in streams[index]]

    return list(await asyncio.gather(*map(read, range(len(streams)))))


if __name__ == "__main__":
    run(load)
