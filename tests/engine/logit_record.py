"""Records every logit a runner returns by the tokens before it, and counts those that differ."""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from appliance.engine.runner import Runner, RunnerInfo
    from appliance.engine.sequence import Batch, Chunk, ChunkOutput, DoubleArray, FloatArray


@dataclass(frozen=True)
class Comparison:
    """What was compared with what had been computed after the same tokens before."""

    num_values: int
    num_rows: int
    num_different_rows: int


@dataclass
class LogitRecord:
    """Logits by the tokens before them: the law says that this is a function."""

    rows: dict[bytes, bytes] = field(default_factory=dict)  # prefix to logits, as digests
    num_values: int = 0
    num_rows: int = 0
    num_different_rows: int = 0

    def add(self, prefix: Sequence[int], values: FloatArray) -> None:
        key = digest(np.array(prefix, np.int64).tobytes())
        found = digest(values.tobytes())
        known = self.rows.setdefault(key, found)
        if known is not found:
            self.num_values += values.size
            self.num_rows += 1
            self.num_different_rows += known != found

    def take_comparison(self) -> Comparison:
        """Return the counts since the last call, and begin new ones."""
        comparison = Comparison(self.num_values, self.num_rows, self.num_different_rows)
        self.num_values = self.num_rows = self.num_different_rows = 0
        return comparison

    @property
    def fingerprint(self) -> str:
        return digest(*(key + self.rows[key] for key in sorted(self.rows))).hex()


class RecordingRunner:
    """A runner that records each of its rows of logits."""

    def __init__(self, runner: Runner, record: LogitRecord) -> None:
        self._runner = runner
        self._logit_record = record

    @property
    def info(self) -> RunnerInfo:
        return self._runner.info

    def forward(self, batch: Batch) -> list[ChunkOutput]:
        outputs = self._runner.forward(batch)
        for chunk, output in zip(batch.chunks, outputs, strict=True):
            if output.logits is not None:
                self._record(chunk, output.logits)
        return outputs

    def weigh(self, logits: FloatArray, peak: float, temperature: float) -> DoubleArray:
        return self._runner.weigh(logits, peak, temperature)

    def release(self, sequence_id: int) -> None:
        self._runner.release(sequence_id)

    def _record(self, chunk: Chunk, logits: FloatArray) -> None:
        known = [*chunk.sequence.token_ids[: chunk.start], *chunk.token_ids]
        for end, row in enumerate(logits, len(known) - len(logits) + 1):
            self._logit_record.add(known[:end], row)


def digest(*parts: bytes) -> bytes:
    return blake2b(b"".join(parts), digest_size=16).digest()
