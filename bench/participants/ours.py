"""This project's engine: the native kernels, and torch as the reference."""

from __future__ import annotations

import sys
from importlib.metadata import version

from appliance.machine import available_cores
from bench.checkpoints import Checkpoint
from bench.load import Target
from bench.participant import Figures, Job, Participant, ServerStart, run_worker

QUANTIZATIONS = {"bf16": "none", "int8": "int8", "int4": "int4"}


# Random weights soon repeat themselves when asked greedily, so guesses from what was said before
# would be right far more often than with any real model.
FAIR = {"speculation": "off"}


def single_or_batch(job: Job) -> Figures:
    return run_worker("ours", job, job.checkpoint.path, settings=settings(job))


def on_torch(job: Job) -> Figures:
    return run_worker("ours", job, job.checkpoint.path, settings={"engine": "torch", **FAIR})


def settings(job: Job) -> dict[str, str]:
    return {
        "engine": "native",
        **FAIR,
        "quantization": QUANTIZATIONS[job.precision],
    }


def serve(job: Job, port: int) -> ServerStart:
    flags = {
        **settings(job),
        "model": job.checkpoint.path,
        "port": port,
        "threads": job.num_threads,
        "log_level": "warning",
    }
    command = [sys.executable, "-m", "appliance", "serve"]
    for name, value in flags.items():
        command += [f"--{name.replace('_', '-')}", str(value)]
    return ServerStart(command=command, target=Target(port, job.checkpoint.path.name))


def prepare(checkpoint: Checkpoint, precision: str) -> None:
    """A first start compiles the kernels, hashes and packs the weights, once for all later ones."""
    job = Job(
        checkpoint=checkpoint,
        precision=precision,
        kind="batch",
        num_threads=available_cores(),
        new_tokens=2,
        prompt_tokens=8,
        seconds=0.0,
        seed="prepare",
    )
    single_or_batch(job)


def nothing(checkpoint: Checkpoint, precision: str) -> None:
    """It reads the checkpoint."""


def versions() -> dict[str, str]:
    return {"appliance": version("llama-appliance"), "torch": version("torch")}


NATIVE = Participant(
    name="appliance",
    precisions=("bf16", "int8", "int4"),
    install=lambda: None,
    prepare=prepare,
    versions=versions,
    single=single_or_batch,
    batch=single_or_batch,
    serve=serve,
)

ON_TORCH = Participant(
    name="appliance --engine torch",
    precisions=("bf16",),
    install=lambda: None,
    prepare=nothing,
    versions=versions,
    single=on_torch,
    batch=on_torch,
)
