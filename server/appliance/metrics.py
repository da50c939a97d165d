"""Defines every Prometheus series and records events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from appliance.histogram import TokenIntervals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from prometheus_client.metrics_core import Metric

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

REQUEST_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
TOKEN_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5)
BATCH_TOKENS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
BUILD_LABELS = ("version", "generation", "model", "weights", "tokenizer", "template", "server")


class Build(Protocol):
    """What is shown of a model that is loaded."""

    @property
    def model(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def generation(self) -> str | None: ...
    def short(self) -> Mapping[str, str | None]: ...


class EngineState(Protocol):
    """What is read from an engine at a scrape."""

    @property
    def num_running(self) -> int: ...
    @property
    def num_waiting(self) -> int: ...
    @property
    def num_used_blocks(self) -> int: ...
    @property
    def num_free_blocks(self) -> int: ...


class AuditHead(Protocol):
    """The end of an audit log."""

    @property
    def number(self) -> int: ...
    @property
    def gauge(self) -> int: ...


class AuditState(Protocol):
    """What is read from the audit log when the metrics are read."""

    @property
    def head(self) -> AuditHead: ...
    @property
    def num_lost(self) -> int: ...


class Metrics:
    """All series, in a registry of their own. Methods may be called from any thread.

    Labels take few values: `route` is the route's pattern, never a path that a client made up.
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        self._define_request_series()
        self._define_token_series()
        self._define_engine_series()
        self._define_audit_series()
        self._build = self._gauge(
            "appliance_build_info",
            "What is running: versions and short hashes; always 1.",
            *BUILD_LABELS,
        )
        self._builds: dict[str, tuple[str, ...]] = {}  # labels by model
        self._ready = self._gauge("appliance_ready", "1 while /health is 200, else 0.")

    def _define_request_series(self) -> None:
        self._requests = self._counter(
            "appliance_requests_total",
            "HTTP requests ended; 499: the client left first.",
            "route",
            "status",
        )
        self._request_duration = self._histogram(
            "appliance_request_duration_seconds",
            "From a request's arrival to the end of its answer, streams included.",
            REQUEST_SECONDS,
            "route",
        )
        self._rejections = self._counter(
            "appliance_rejected_requests_total",
            "Requests refused, by error code; not streams that fail later.",
            "reason",
        )

    def _define_token_series(self) -> None:
        self.prompt_tokens = self._counter(
            "appliance_prompt_tokens_total",
            "Tokens of prompts whose computation began, once for each answer.",
            "model",
        )
        self.reused_tokens = self._counter(
            "appliance_reused_tokens_total",
            "Tokens found in the prefix cache and not computed again.",
            "model",
        )
        self.generated_tokens = self._counter(
            "appliance_generated_tokens_total",
            "Tokens sampled for answers, read by a client or not.",
            "model",
        )
        self.drafted_tokens = self._counter(
            "appliance_drafted_tokens_total",
            "Tokens guessed from earlier text and computed.",
            "model",
        )
        self.accepted_tokens = self._counter(
            "appliance_accepted_draft_tokens_total",
            "Guessed tokens that the model would have chosen.",
            "model",
        )
        self.first_token = self._histogram(
            "appliance_first_token_seconds",
            "From a sequence's submission to its first token: waiting and reading the prompt.",
            REQUEST_SECONDS,
            "model",
        )
        self.token_intervals = TokenIntervals(
            "appliance_token_interval_seconds",
            "Between two tokens of one sequence, as they are computed.",
            TOKEN_SECONDS,
        )
        self._registry.register(self.token_intervals)

    def _define_engine_series(self) -> None:
        self.finished = self._counter(
            "appliance_finished_sequences_total",
            "Sequences ended: stop, length, timed_out, failed or cancelled.",
            "model",
            "reason",
        )
        self.preempted = self._counter(
            "appliance_preempted_sequences_total",
            "Times a sequence lost its cache blocks to an older one and was computed again.",
            "model",
        )
        self.engine_failures = self._counter(
            "appliance_engine_failures_total", "Answers lost to a failure of the engine.", "model"
        )
        self.step_duration = self._histogram(
            "appliance_step_duration_seconds",
            "Length of an engine step: a forward pass and sampling.",
            TOKEN_SECONDS,
            "model",
        )
        self.step_tokens = self._histogram(
            "appliance_step_tokens",
            "Tokens that an engine step computed, repeated ones included.",
            BATCH_TOKENS,
            "model",
        )
        self._running = self._gauge(
            "appliance_running_sequences", "Sequences being computed.", "model"
        )
        self._waiting = self._gauge(
            "appliance_waiting_sequences", "Sequences in the queue.", "model"
        )
        self._used_blocks = self._gauge(
            "appliance_kv_used_blocks", "Key-value cache blocks in use, 16 tokens each.", "model"
        )
        self._total_blocks = self._gauge(
            "appliance_kv_total_blocks", "Key-value cache blocks in total.", "model"
        )

    def _define_audit_series(self) -> None:
        self._audit_entries = self._gauge(
            "appliance_audit_entries", "The number of the last entry of the audit log."
        )
        self._audit_head = self._gauge(
            "appliance_audit_head",
            "The first 13 digits of the last entry's hash, for `appliance audit verify --head`.",
        )
        self._audit_lost = self._gauge(
            "appliance_audit_lost_entries",
            "Entries that were lost because the disk did not take them in time.",
        )

    def _counter(self, name: str, help_text: str, *labels: str) -> Counter:
        return Counter(name, help_text, labels, registry=self._registry)

    def _gauge(self, name: str, help_text: str, *labels: str) -> Gauge:
        return Gauge(name, help_text, labels, registry=self._registry)

    def _histogram(
        self, name: str, help_text: str, buckets: tuple[float, ...], *labels: str
    ) -> Histogram:
        return Histogram(name, help_text, labels, registry=self._registry, buckets=buckets)

    def observer(self, model: str) -> ModelMetrics:
        """Return what the engine of a model reports to."""
        return ModelMetrics(self, model)

    def watch(self, identity: Build, engine: EngineState) -> None:
        """Show what a model is, and its engine's gauges, read at each scrape: a step's report would
        be stale when it idles."""
        self.unwatch(identity.model)
        labels = {
            "version": identity.version,
            "generation": identity.generation,
            "model": identity.model,
            **identity.short(),
        }
        self._build.labels(*(labels.get(name) or "" for name in BUILD_LABELS)).set(1)
        self._builds[identity.model] = tuple(labels.get(name) or "" for name in BUILD_LABELS)
        gauges: dict[Gauge, Callable[[], float]] = {
            self._running: lambda: engine.num_running,
            self._waiting: lambda: engine.num_waiting,
            self._used_blocks: lambda: engine.num_used_blocks,
            self._total_blocks: lambda: engine.num_used_blocks + engine.num_free_blocks,
        }
        for gauge, read in gauges.items():
            gauge.labels(identity.model).set_function(read)

    def unwatch(self, model: str) -> None:
        """Forget what describes a model that is loaded; what was counted stays."""
        if (build := self._builds.pop(model, None)) is None:
            return
        self._build.remove(*build)
        for gauge in (self._running, self._waiting, self._used_blocks, self._total_blocks):
            gauge.remove(model)

    def set_ready(self, *, is_ready: bool) -> None:
        self._ready.set(int(is_ready))

    def watch_audit(self, log: AuditState) -> None:
        self._audit_entries.set_function(lambda: log.head.number)
        self._audit_head.set_function(lambda: log.head.gauge)
        self._audit_lost.set_function(lambda: log.num_lost)

    def observe_request(self, route: str, status: int, duration_s: float) -> None:
        self._requests.labels(route, str(status)).inc()
        self._request_duration.labels(route).observe(duration_s)

    def count_rejection(self, reason: str) -> None:
        """Count a refused request; `reason` is the stable code of the error."""
        self._rejections.labels(reason).inc()

    def render(self) -> bytes:
        """Return all series in Prometheus' text format; serve it as CONTENT_TYPE."""
        return generate_latest(self)

    def collect(self) -> Iterator[Metric]:
        """Collect without the `_created` twin that the library adds to each series."""
        for metric in self._registry.collect():
            metric.samples = [s for s in metric.samples if not s.name.endswith("_created")]
            yield metric


class ModelMetrics:
    """Counts what one model's engine reports; the engine's observer."""

    def __init__(self, metrics: Metrics, model: str) -> None:
        self._prompt_tokens = metrics.prompt_tokens.labels(model)
        self._reused_tokens = metrics.reused_tokens.labels(model)
        self._generated_tokens = metrics.generated_tokens.labels(model)
        self._drafted_tokens = metrics.drafted_tokens.labels(model)
        self._accepted_tokens = metrics.accepted_tokens.labels(model)
        self._first_token = metrics.first_token.labels(model)
        self._intervals = metrics.token_intervals.of(model)
        self._preempted = metrics.preempted.labels(model)
        self._engine_failures = metrics.engine_failures.labels(model)
        self._step_duration = metrics.step_duration.labels(model)
        self._step_tokens = metrics.step_tokens.labels(model)
        self._finished = metrics.finished
        self._model = model

    def on_start(self, num_prompt_tokens: int, /) -> None:
        self._prompt_tokens.inc(num_prompt_tokens)

    def on_reuse(self, num_tokens: int, /) -> None:
        self._reused_tokens.inc(num_tokens)

    def on_step(self, num_tokens: int, duration_s: float, /) -> None:
        self._step_tokens.observe(num_tokens)
        self._step_duration.observe(duration_s)

    def on_draft(self, num_drafted: int, num_accepted: int, /) -> None:
        self._drafted_tokens.inc(num_drafted)
        self._accepted_tokens.inc(num_accepted)

    def on_first_token(self, delay_s: float, /) -> None:
        self._generated_tokens.inc()
        self._first_token.observe(delay_s)

    def on_next_tokens(self, intervals_s: Sequence[float], /) -> None:
        self._generated_tokens.inc(len(intervals_s))
        self._intervals.add(intervals_s)

    def on_preempt(self) -> None:
        self._preempted.inc()

    def on_end(self, reason: str, /) -> None:
        """Count an end; `reason` is a FinishReason, and failures have a counter to alert on."""
        self._finished.labels(self._model, reason).inc()
        if reason == "failed":
            self._engine_failures.inc()
