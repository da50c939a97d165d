"""Makes one measurement: calls a participant, or starts its server and puts it under load."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import uvloop

from bench.cache import cache_dir
from bench.checkpoints import Checkpoint
from bench.load import Target, first_token, make_prompts, measure
from bench.participant import Figures, Job, Participant, timeout_s
from bench.plan import (
    DECODE_TOKENS,
    NEW_TOKENS,
    PREFILL_TOKENS,
    PROMPT_TOKENS,
    Cell,
    num_requests,
)
from bench.process import free_port, run, run_json, server

WARM_UP_TOKENS = 8
SECONDS_OF_SMALL = 2.0  # a sequence of a small model is timed again and again for so long
BITS = {"bf16": 16.0, "int8": 8.5, "int4": 4.5}  # of a weight with its scale, as in GGUF
LIMIT_SECONDS = 1.5


def make_job(cell: Cell, checkpoint: Checkpoint, num_threads: int, turn: int) -> Job:
    is_single = cell.kind == "single"
    return Job(
        checkpoint=checkpoint,
        precision=cell.precision,
        kind=cell.kind,
        num_threads=num_threads,
        new_tokens=DECODE_TOKENS if is_single else NEW_TOKENS,
        prompt_tokens=PREFILL_TOKENS if is_single else PROMPT_TOKENS,
        seconds=SECONDS_OF_SMALL if is_single and cell.model != "L" else 0.0,
        seed=f"round {turn}",
        concurrency=cell.concurrency or 1,
    )


def take(participant: Participant, job: Job, concurrencies: tuple[int, ...]) -> Figures:
    if job.kind == "serve":
        # The load generator takes from the servers' cores: uvloop halves that.
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(load_server(participant, job, concurrencies))
    way = participant.single if job.kind == "single" else participant.batch
    if way is None:
        raise AssertionError(f"{participant.name} was asked for {job.kind}")
    return way(job)


async def load_server(
    participant: Participant, job: Job, concurrencies: tuple[int, ...]
) -> Figures:
    """One life of a server: start, first token, load at each concurrency, memory, end."""
    if participant.serve is None:
        raise AssertionError(f"{participant.name} has no server")
    start = participant.serve(job, free_port())
    log = cache_dir("logs") / f"{participant.name}-{job.checkpoint.name}-{job.precision}.log"
    figures: Figures = {"load": {}}
    with server(start.command, env=start.env, log=log) as process:
        prompt = make_prompts(1, 8, f"{job.seed} first")[0]
        came_at_s = await first_token(
            start.target, prompt, start.start_timeout_s, process.check_alive
        )
        figures["start_to_first_token"] = came_at_s - process.started_at_s
        figures["start_memory_bytes"] = process.peak_memory_bytes()
        for concurrency in concurrencies:
            figures["load"][str(concurrency)] = await _load(start.target, job, concurrency)
            process.check_alive()
        figures["peak_memory_bytes"] = process.peak_memory_bytes()
    return figures


async def _load(target: Target, job: Job, concurrency: int) -> dict[str, float]:
    count = num_requests(job.checkpoint.name, concurrency)
    seed = f"{job.seed} {concurrency}"
    limit_s = timeout_s(job) + 0.5 * job.new_tokens * count
    warm_up = make_prompts(concurrency, job.prompt_tokens, f"{seed} warm-up")
    await measure(
        target, warm_up, concurrency=concurrency, max_tokens=WARM_UP_TOKENS, timeout_s=limit_s
    )
    prompts = make_prompts(count, job.prompt_tokens, seed)
    return await measure(
        target, prompts, concurrency=concurrency, max_tokens=job.new_tokens, timeout_s=limit_s
    )


def limits(job: Job) -> Figures:
    """What the machine can do at this moment: read this model's weights, and multiply."""
    checkpoint = job.checkpoint
    read_bytes = int(checkpoint.num_read_parameters * BITS[job.precision] / 8)
    command = [str(_limits_program()), str(job.num_threads), str(read_bytes), str(LIMIT_SECONDS)]
    found: Figures = run_json(command, timeout_s=120)
    figures = {
        "decode": found["read_bytes_per_s"]["median"] / read_bytes,
        "read_bytes_per_s": found["read_bytes_per_s"]["median"],
    }
    # The output matrix is multiplied for the last token of a prompt alone.
    config = json.loads((checkpoint.path / "config.json").read_text())
    head = config["vocab_size"] * config["hidden_size"]
    operations = 2.0 * (checkpoint.num_read_parameters - head)
    arithmetic = "bf16" if job.precision == "bf16" else "int8"
    if arithmetic in found:
        figures["operations_per_s"] = found[arithmetic]["median"]
        figures["prefill"] = found[arithmetic]["median"] / operations
    return figures


def _limits_program() -> Path:
    """Compiled once; measured with nothing but a C compiler."""
    source = Path(__file__).with_name("limits.c")
    program = cache_dir("limits") / "limits"
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        flags = ["-std=gnu11", "-O3", "-pthread", "-o", str(program), str(source)]
        run(["cc", *flags], timeout_s=120)
    return program
