"""Times one engine in its own process; asks nothing of the venv but the standard library."""

from __future__ import annotations

import json
import random
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

# Prompts and a number of new tokens in; the moments at which each answer's tokens were there out.
Generate = Callable[[list[list[int]], int], list[list[float]]]

WARM_UP_TOKENS = 8
DECODE_PROMPT_TOKENS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What to load and what to time; one JSON object on the command line."""

    model: str
    precision: str
    num_threads: int
    kind: str  # single or batch
    new_tokens: int
    prompt_tokens: int
    concurrency: int = 1
    seconds: float = 0.0  # a single measurement is repeated for so long
    first_token_id: int
    last_token_id: int
    seed: str = ""
    settings: dict[str, Any]


def run(load: Callable[[Task], Generate]) -> None:
    """The whole of a worker: load, warm up, measure, one line of JSON."""
    task = Task(**json.loads(sys.argv[1]))
    began_s = time.perf_counter()
    generate = load(task)
    prompts = _prompts(task, 1, task.prompt_tokens, "warm-up")
    generate(prompts, WARM_UP_TOKENS)
    load_s = time.perf_counter() - began_s
    figures = time_single(task, generate) if task.kind == "single" else time_batch(task, generate)
    print(json.dumps({**figures, "load_s": load_s}), flush=True)


def time_single(task: Task, generate: Generate) -> dict[str, float]:
    """One sequence: how fast a prompt is read, and how fast tokens follow the first."""
    prefills: list[float] = []
    decodes: list[float] = []
    end_s = time.perf_counter() + task.seconds
    while not decodes or time.perf_counter() < end_s:
        seed = len(decodes)
        [prompt] = _prompts(task, 1, task.prompt_tokens, f"prefill {seed}")
        began_s = time.perf_counter()
        [times] = generate([prompt], 1)
        prefills.append(task.prompt_tokens / (times[0] - began_s))
        [times] = generate(
            _prompts(task, 1, DECODE_PROMPT_TOKENS, f"decode {seed}"), task.new_tokens
        )
        _check(times, task.new_tokens)
        decodes.append((len(times) - 1) / (times[-1] - times[0]))
    return {"prefill": statistics.median(prefills), "decode": statistics.median(decodes)}


def time_batch(task: Task, generate: Generate) -> dict[str, float]:
    """As many sequences as `concurrency`, all there from the beginning."""
    generate(_prompts(task, task.concurrency, task.prompt_tokens, "warm-up 2"), WARM_UP_TOKENS)
    prompts = _prompts(task, task.concurrency, task.prompt_tokens, "batch")
    began_s = time.perf_counter()
    answers = generate(prompts, task.new_tokens)
    for times in answers:
        _check(times, task.new_tokens)
    gaps = [late - early for times in answers for early, late in pairwise(times)]
    first_tokens = [times[0] - began_s for times in answers]
    wall_s = max(times[-1] for times in answers) - began_s
    return {
        "throughput": sum(map(len, answers)) / wall_s,
        "ttft_p50": _percentile(first_tokens, 50),
        "ttft_p99": _percentile(first_tokens, 99),
        "itl_p50": _percentile(gaps, 50),
        "itl_p99": _percentile(gaps, 99),
    }


def _check(times: list[float], expected: int) -> None:
    if len(times) != expected:
        raise SystemExit(f"{len(times)} tokens came where {expected} were asked for")


def _prompts(task: Task, count: int, num_tokens: int, name: str) -> list[list[int]]:
    """Token ids that no other prompt begins with, so that no prefix cache helps anyone."""
    chance = random.Random(f"{task.seed} {name}")
    ids = range(task.first_token_id, task.last_token_id)
    return [chance.choices(ids, k=num_tokens) for _ in range(count)]


def _percentile(values: list[float], percent: int) -> float:
    if len(values) < 2:
        return values[0]
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]
