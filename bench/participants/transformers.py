"""transformers: generate() in process, and `transformers serve` with continuous batching."""

from __future__ import annotations

from bench.checkpoints import Checkpoint
from bench.install import install, python_of, versions
from bench.load import Target
from bench.participant import Figures, Job, Participant, ServerStart, run_worker

NAME = "transformers"
SERVE = "from transformers.cli.transformers import main; main()"


def prepare(checkpoint: Checkpoint, precision: str) -> None:
    """Nothing: it reads the checkpoint."""


def single_or_batch(job: Job) -> Figures:
    return run_worker("transformers", job, job.checkpoint.path, peer=NAME)


def serve(job: Job, port: int) -> ServerStart:
    model = str(job.checkpoint.path)
    command = [python_of(NAME), "-c", SERVE, "serve", model, "--continuous-batching"]
    command += ["--device", "cpu", "--dtype", "bfloat16"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    return ServerStart(command=command, target=Target(port, model))


PARTICIPANT = Participant(
    name=NAME,
    precisions=("bf16",),
    install=lambda: install(NAME),
    prepare=prepare,
    versions=lambda: versions(NAME),
    single=single_or_batch,
    batch=single_or_batch,
    serve=serve,
)
