"""OpenVINO GenAI with its continuous batching, in process: its server is a program of its own."""

from __future__ import annotations

import shutil
from pathlib import Path

from bench.cache import cache_dir
from bench.checkpoints import Checkpoint
from bench.install import home_of, install, python_of, versions
from bench.participant import Figures, Job, Participant, run_worker
from bench.process import run

NAME = "openvino"
EXPORT = "from optimum.commands.optimum_cli import main; main()"
PREPARE_TIMEOUT_S = 1200


def exported(checkpoint: Checkpoint, precision: str) -> Path:
    return cache_dir("artifacts", NAME) / f"{checkpoint.path.name}-{precision}"


def prepare(checkpoint: Checkpoint, precision: str) -> None:
    target = exported(checkpoint, precision)
    if target.exists():
        return
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    command = [python_of(NAME), "-c", EXPORT, "export", "openvino", "-m", str(checkpoint.path)]
    command += ["--task", "text-generation-with-past", "--weight-format", precision]
    if precision == "int4":  # groups as small as the others', where the default of 128 may not fit
        command += ["--group-size", "32", "--ratio", "1.0", "--sym"]
    command.append(str(partial))
    run(command, timeout_s=PREPARE_TIMEOUT_S, log=home_of(NAME) / "prepare.log")
    partial.rename(target)


def single_or_batch(job: Job) -> Figures:
    return run_worker("openvino", job, exported(job.checkpoint, job.precision), peer=NAME)


PARTICIPANT = Participant(
    name=NAME,
    precisions=("int8", "int4"),
    install=lambda: install(NAME),
    prepare=prepare,
    versions=lambda: versions(NAME),
    single=single_or_batch,
    batch=single_or_batch,
)
