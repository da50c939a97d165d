"""llama.cpp, on GGUF files of the same weights."""

from __future__ import annotations

from pathlib import Path

from bench.cache import cache_dir
from bench.checkpoints import Checkpoint
from bench.install import home_of, install, python_of
from bench.participant import REPOSITORY
from bench.participants.llama_tools import LlamaTools
from bench.process import run

NAME = "llama.cpp"
TYPES = {"bf16": "BF16", "int8": "Q8_0", "int4": "Q4_0"}
PREPARE_TIMEOUT_S = 600


def gguf(checkpoint: Checkpoint, precision: str) -> Path:
    return cache_dir("artifacts", NAME) / f"{checkpoint.path.name}-{TYPES[precision]}.gguf"


def prepare(checkpoint: Checkpoint, precision: str) -> None:
    """Make the model file, by llama.cpp's own converter; its forks read it as well."""
    target = gguf(checkpoint, precision)
    if target.exists():
        return
    install(NAME)
    partial = target.with_suffix(".partial")
    if precision == "bf16":
        command = [python_of(NAME), "-m", "bench.workers.to_gguf", str(home_of(NAME) / "source")]
        command += [str(checkpoint.path), "--outtype", "bf16", "--outfile", str(partial)]
    else:
        prepare(checkpoint, "bf16")
        source = str(gguf(checkpoint, "bf16"))
        command = [TOOLS.tool("llama-quantize"), source, str(partial), TYPES[precision], "2"]
    run(command, timeout_s=PREPARE_TIMEOUT_S, cwd=REPOSITORY, log=home_of(NAME) / "prepare.log")
    partial.rename(target)


TOOLS = LlamaTools(name=NAME, gguf=gguf, server_flags=("--offline",))
PARTICIPANT = TOOLS.participant(tuple(TYPES), prepare)
