"""What is measured, in which order, how long and how often."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bench.checkpoints import EMBEDDED
from bench.participant import Participant

KINDS = ("single", "batch", "serve")
MODELS = ("S", "M", "L", EMBEDDED)
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What of the whole plan is run."""

    kinds: Sequence[str] = KINDS
    models: Sequence[str] = MODELS
    precisions: Sequence[str] = PRECISIONS
    is_quick: bool = False
    rounds: int | None = None

    def cells(self) -> Iterator[Cell]:
        for model in self.models:
            for kind in KINDS:
                for precision in self.precisions:
                    if kind in self.kinds and self._is_wanted(kind, model, precision):
                        yield from _cells_of(kind, model, precision)

    def _is_wanted(self, kind: str, model: str, precision: str) -> bool:
        """Quick: only what a promise is made about."""
        if model == EMBEDDED and kind == "batch":
            return False
        if not self.is_quick or kind == "single":
            return True
        return kind == "serve" and (precision == "int8" or (model, precision) == ("L", "bf16"))

    def num_rounds(self, cell: Cell) -> int:
        """Loads at L take minutes each; the record says how many rounds a median is of."""
        if self.rounds is not None or self.is_quick:
            return self.rounds or 1
        return 2 if cell.model == "L" and cell.kind == "serve" else 3

    def concurrencies(self, model: str) -> Sequence[int]:
        """Loads a server is put under; the embedded model is only started."""
        return () if model == EMBEDDED else CONCURRENCIES


def _cells_of(kind: str, model: str, precision: str) -> Iterator[Cell]:
    if kind == "batch":
        for concurrency in CONCURRENCIES:
            yield Cell(kind, model, precision, concurrency)
    else:
        yield Cell(kind, model, precision)


def num_requests(model: str, concurrency: int) -> int:
    return NUM_REQUESTS.get(model, NUM_REQUESTS_OF_SMALL)[concurrency]


def in_turn(participants: Sequence[Participant], turn: int) -> list[Participant]:
    """Each round begins with another one, so that nobody always runs after the same neighbour."""
    start = turn % max(len(participants), 1)
    return [*participants[start:], *participants[:start]]
