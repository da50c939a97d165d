"""ik_llama.cpp, a fork of llama.cpp with its own products for CPUs, on llama.cpp's files."""

from __future__ import annotations

from bench.participants.llama_cpp import TYPES, gguf, prepare
from bench.participants.llama_tools import LlamaTools

# What it is fastest with: weights rearranged for the CPU at the start.
FAST = ("-rtr", "1")

TOOLS = LlamaTools(name="ik_llama.cpp", gguf=gguf, bench_flags=FAST, server_flags=("-rtr",))
PARTICIPANT = TOOLS.participant(tuple(TYPES), prepare)
