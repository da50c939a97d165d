"""Our engine as the server wires it, asked without HTTP and without text."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.engine.sequence import SamplingParams
from appliance.metrics import Metrics
from appliance.models.hashing import FileHasher
from appliance.models.loading import find_model, load_model
from appliance.models.machine import ThisMachine
from appliance.models.options import load_configuration
from appliance.models.plan import plan_runner
from bench.workers.timing import Generate, Task, run

if TYPE_CHECKING:
    from appliance.engine.engine import Engine


def load(task: Task) -> Generate:
    flags = {"model_path": Path(task.model), "threads": task.num_threads, **task.settings}
    configuration = load_configuration(os.environ, flags)
    cache_dir, [options] = configuration.settings.cache_dir, configuration.models
    hasher = FileHasher(cache_dir)
    plan = plan_runner(options, find_model(options, hasher), ThisMachine(cache_dir))
    engine = load_model(plan, hasher, Metrics().observer("bench")).engine
    return lambda prompts, new_tokens: asyncio.run(_generate(engine, prompts, new_tokens))


async def _generate(engine: Engine, prompts: list[list[int]], new_tokens: int) -> list[list[float]]:
    params = SamplingParams(max_new_tokens=new_tokens, seed=0, temperature=0.0)
    streams = [engine.submit(prompt, params) for prompt in prompts]

    async def read(index: int) -> list[float]:
        return [time.perf_counter() async for _ in streams[index]]

    return list(await asyncio.gather(*map(read, range(len(streams)))))


if __name__ == "__main__":
    run(load)
