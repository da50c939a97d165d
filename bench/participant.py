"""What takes part in a comparison: how it is prepared, timed, and started as a server."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.checkpoints import EMBEDDED, Checkpoint
from bench.install import python_of
from bench.load import Target
from bench.process import run_json
from bench.workers.timing import Task

REPOSITORY = Path(__file__).parents[1]
WORD_IDS = (935, 1611)  # " aa" to " zz" in our checkpoints
EMBEDDED_IDS = (300, 4000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One thing to time: a checkpoint in one precision, and how."""

    checkpoint: Checkpoint
    precision: str  # bf16, int8 or int4
    kind: str  # single, batch or serve
    num_threads: int
    new_tokens: int
    prompt_tokens: int
    seconds: float
    seed: str
    concurrency: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerStart:
    """How a server is started, and where it then answers."""

    command: list[str]
    target: Target
    env: Mapping[str, str] = field(default_factory=dict)
    start_timeout_s: float = 120.0


Figures = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Participant:
    """An engine in the comparison; what it cannot do is None."""

    name: str
    precisions: tuple[str, ...]
    install: Callable[[], None]
    prepare: Callable[[Checkpoint, str], None]  # makes what it loads, unless it is there
    versions: Callable[[], dict[str, str]]
    single: Callable[[Job], Figures] | None = None
    batch: Callable[[Job], Figures] | None = None
    serve: Callable[[Job, int], ServerStart] | None = None
    models: tuple[str, ...] = ("S", "M", "L", EMBEDDED)

    def can(self, job: Job) -> bool:
        has_way = getattr(self, job.kind) is not None
        return has_way and job.precision in self.precisions and job.checkpoint.name in self.models


def run_worker(
    module: str,
    job: Job,
    model: Path,
    *,
    peer: str | None = None,
    settings: dict[str, str] | None = None,
) -> Figures:
    """The figures of a worker, in the venv of a peer or in ours."""
    is_embedded = job.checkpoint.name == EMBEDDED
    first_id, last_id = EMBEDDED_IDS if is_embedded else WORD_IDS
    task = Task(
        model=str(model),
        precision=job.precision,
        num_threads=job.num_threads,
        kind=job.kind,
        new_tokens=job.new_tokens,
        prompt_tokens=job.prompt_tokens,
        concurrency=job.concurrency,
        seconds=job.seconds,
        first_token_id=first_id,
        last_token_id=last_id,
        seed=job.seed,
        settings=settings or {},
    )
    python = sys.executable if peer is None else python_of(peer)
    command = [python, "-m", f"bench.workers.{module}", json.dumps(asdict(task))]
    return run_json(command, timeout_s=timeout_s(job), cwd=REPOSITORY)


def timeout_s(job: Job) -> float:
    """Allow for two tokens a second; a slower participant is not measured."""
    return 240 + 8 * job.seconds + 0.5 * job.new_tokens * job.concurrency
