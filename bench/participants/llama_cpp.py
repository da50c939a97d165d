"""llama.cpp: llama-bench for one sequence, llama-server for many; GGUF of the same weights."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

from bench.cache import cache_dir
from bench.checkpoints import Checkpoint
from bench.install import home_of, install, python_of, versions
from bench.load import Target
from bench.participant import REPOSITORY, Figures, Job, Participant, ServerStart, timeout_s
from bench.process import run

NAME = "llama.cpp"
TYPES = {"bf16": "BF16", "int8": "Q8_0", "int4": "Q4_0"}
NUM_SLOTS = 32
CONTEXT_TOKENS = 8192  # of all slots together
PREPARE_TIMEOUT_S = 600


def gguf(checkpoint: Checkpoint, precision: str) -> Path:
    return cache_dir("artifacts", NAME) / f"{checkpoint.path.name}-{TYPES[precision]}.gguf"


def prepare(checkpoint: Checkpoint, precision: str) -> None:
    target = gguf(checkpoint, precision)
    if target.exists():
        return
    partial = target.with_suffix(".partial")
    if precision == "bf16":
        command = [python_of(NAME), "-m", "bench.workers.to_gguf", str(home_of(NAME) / "source")]
        command += [str(checkpoint.path), "--outtype", "bf16", "--outfile", str(partial)]
    else:
        prepare(checkpoint, "bf16")
        source = str(gguf(checkpoint, "bf16"))
        command = [tool("llama-quantize"), source, str(partial), TYPES[precision], "2"]
    run(command, timeout_s=PREPARE_TIMEOUT_S, cwd=REPOSITORY, log=home_of(NAME) / "prepare.log")
    partial.rename(target)


def single(job: Job) -> Figures:
    """The medians of llama-bench's own repetitions, after its own warm-up."""
    found: dict[str, list[float]] = {"prefill": [], "decode": []}
    repetitions = 1 if job.checkpoint.name == "L" else 5
    command = [tool("llama-bench"), "-m", str(gguf(job.checkpoint, job.precision))]
    command += ["-t", str(job.num_threads), "-r", str(repetitions), "-o", "json"]
    command += ["-p", str(job.prompt_tokens), "-n", str(job.new_tokens)]
    for test in json.loads(run(command, timeout_s=timeout_s(job))):
        found["decode" if test["n_gen"] else "prefill"] += test["samples_ts"]
    return {metric: statistics.median(values) for metric, values in found.items()}


def serve(job: Job, port: int) -> ServerStart:
    command = [tool("llama-server"), "-m", str(gguf(job.checkpoint, job.precision))]
    threads = str(job.num_threads)
    command += ["-t", threads, "-tb", threads, "-np", str(NUM_SLOTS), "-c", str(CONTEXT_TOKENS)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--no-warmup", "--offline"]
    return ServerStart(command=command, target=Target(port, job.checkpoint.name))


def tool(name: str) -> str:
    return str(home_of(NAME) / "build" / "bin" / name)


PARTICIPANT = Participant(
    name=NAME,
    precisions=tuple(TYPES),
    install=lambda: install(NAME),
    prepare=prepare,
    versions=lambda: versions(NAME),
    single=single,
    serve=serve,
)
