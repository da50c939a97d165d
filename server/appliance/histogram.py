"""Histograms by model that cost an engine's thread next to nothing."""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate
from typing import TYPE_CHECKING

from prometheus_client.metrics_core import HistogramMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from prometheus_client.metrics_core import Metric


class TokenIntervals(Collector):
    """A histogram by model of what comes many times a batch, on the engines' threads: the library's
    takes a microsecond a value, as long as choosing a token does.
    """

    def __init__(self, name: str, help_text: str, bounds: tuple[float, ...]) -> None:
        self._name = name
        self._help = help_text
        self._bounds = bounds
        self._series: dict[str, Series] = {}

    def of(self, model: str) -> Series:
        """Return the series that one engine's thread adds to."""
        return self._series.setdefault(model, Series(self._bounds))

    def collect(self) -> Iterator[Metric]:
        family = HistogramMetricFamily(self._name, self._help, labels=["model"])
        names = [*map(str, self._bounds), "+Inf"]
        for model, series in list(self._series.items()):
            buckets = list(zip(names, accumulate(series.counts), strict=True))
            family.add_metric([model], buckets=buckets, sum_value=series.sum)
        yield family


class Series:
    """The values of one histogram."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0
        self._bounds = bounds

    def add(self, values: Sequence[float]) -> None:
        for value in values:
            self.counts[bisect_left(self._bounds, value)] += 1
        self.sum += sum(values)
