"""onnxruntime-genai with int4 weights, one sequence at a time."""

from __future__ import annotations

import shutil
from pathlib import Path

from bench.cache import cache_dir
from bench.checkpoints import Checkpoint
from bench.install import home_of, install, python_of, versions
from bench.participant import Figures, Job, Participant, run_worker
from bench.process import run

NAME = "onnxruntime"
PREPARE_TIMEOUT_S = 1800


def built(checkpoint: Checkpoint, precision: str) -> Path:
    return cache_dir("artifacts", NAME) / f"{checkpoint.path.name}-{precision}"


def prepare(checkpoint: Checkpoint, precision: str) -> None:
    target = built(checkpoint, precision)
    if target.exists():
        return
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    command = [python_of(NAME), "-m", "onnxruntime_genai.models.builder"]
    command += ["-m", str(checkpoint.path), "-o", str(partial), "-p", precision, "-e", "cpu"]
    command += ["-c", str(cache_dir("artifacts", NAME, "work"))]
    command += ["--extra_options", "int4_accuracy_level=4"]  # int8 activations, as the others
    run(command, timeout_s=PREPARE_TIMEOUT_S, log=home_of(NAME) / "prepare.log")
    partial.rename(target)


def single(job: Job) -> Figures:
    return run_worker("onnxruntime", job, built(job.checkpoint, job.precision), peer=NAME)


PARTICIPANT = Participant(
    name=NAME,
    precisions=("int4",),
    install=lambda: install(NAME),
    prepare=prepare,
    versions=lambda: versions(NAME),
    single=single,
)
