"""Every single measurement as a line of JSON, written the moment it is there: a run can go on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """What was measured, of whom, in which round."""

    kind: str  # single, batch, serve or limit
    model: str
    precision: str
    participant: str
    round: int
    concurrency: int | None = None  # of batch; a serve sample holds all of its own


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The figures of one measurement, or why there are none."""

    key: Key
    figures: dict[str, Any] = field(default_factory=dict)
    error: str | None = None
    wall_s: float = 0.0
    neighbours: float | None = None  # cores that others took meanwhile


class SampleFile:
    """Samples by key; the last one of a key counts."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._samples: dict[Key, Sample] = {}
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
            value = json.loads(line)
            sample = Sample(**{**value, "key": Key(**value["key"])})
            self._samples[sample.key] = sample

    def __iter__(self) -> Iterator[Sample]:
        return iter(self._samples.values())

    def has(self, key: Key) -> bool:
        """Whether it was measured; what failed may be tried again."""
        sample = self._samples.get(key)
        return sample is not None and sample.error is None

    def add(self, sample: Sample) -> None:
        self._samples[sample.key] = sample
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(sample)) + "\n")
