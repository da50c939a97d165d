"""What llama.cpp and its forks share: llama-bench for one sequence, llama-server for many."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.checkpoints import Checkpoint
from bench.install import home_of, install, versions
from bench.load import Target
from bench.participant import Figures, Job, Participant, ServerStart, timeout_s
from bench.process import run

NUM_SLOTS = 32
CONTEXT_TOKENS = 8192  # of all slots together


@dataclass(frozen=True, slots=True, kw_only=True)
class LlamaTools:
    """The programs of one such peer, and the flags that only this one takes."""

    name: str
    gguf: Callable[[Checkpoint, str], Path]  # the model file in a precision
    bench_flags: tuple[str, ...] = ()
    server_flags: tuple[str, ...] = ()

    def participant(
        self, precisions: tuple[str, ...], prepare: Callable[[Checkpoint, str], None]
    ) -> Participant:
        return Participant(
            name=self.name,
            precisions=precisions,
            install=lambda: install(self.name),
            prepare=prepare,
            versions=lambda: versions(self.name),
            single=self.single,
            serve=self.serve,
        )

    def single(self, job: Job) -> Figures:
        """Return the medians of llama-bench's own repetitions, after its own warm-up."""
        found: dict[str, list[float]] = {"prefill": [], "decode": []}
        repetitions = 1 if job.checkpoint.name == "L" else 5
        command = [self.tool("llama-bench"), "-m", str(self.gguf(job.checkpoint, job.precision))]
        command += ["-t", str(job.num_threads), "-r", str(repetitions), "-o", "json"]
        command += ["-p", str(job.prompt_tokens), "-n", str(job.new_tokens), *self.bench_flags]
        for test in json.loads(run(command, timeout_s=timeout_s(job))):
            found["decode" if test["n_gen"] else "prefill"] += test["samples_ts"]
        return {metric: statistics.median(values) for metric, values in found.items()}

    def serve(self, job: Job, port: int) -> ServerStart:
        command = [self.tool("llama-server"), "-m", str(self.gguf(job.checkpoint, job.precision))]
        threads = str(job.num_threads)
        command += ["-t", threads, "-tb", threads, "-np", str(NUM_SLOTS), "-c", str(CONTEXT_TOKENS)]
        command += ["--host", "127.0.0.1", "--port", str(port), "--no-warmup", *self.server_flags]
        return ServerStart(command=command, target=Target(port, job.checkpoint.name))

    def tool(self, name: str) -> str:
        return str(home_of(self.name) / "build" / "bin" / name)
