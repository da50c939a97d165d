"""Everyone who takes part: we, and the peers; one file each."""

from bench.participant import Participant
from bench.participants import (
    ik_llama_cpp,
    llama_cpp,
    onnxruntime,
    openvino,
    ours,
    transformers,
    vllm,
)

OURS = ours.NATIVE
OURS_ON_TORCH = ours.ON_TORCH
PEERS: tuple[Participant, ...] = (
    llama_cpp.PARTICIPANT,
    ik_llama_cpp.PARTICIPANT,
    openvino.PARTICIPANT,
    vllm.PARTICIPANT,
    transformers.PARTICIPANT,
    onnxruntime.PARTICIPANT,
)
ALL = (OURS, *PEERS, OURS_ON_TORCH)

__all__ = ["ALL", "OURS", "OURS_ON_TORCH", "PEERS", "Participant"]
