"""Every series has our name, counts what it says, and is current at each scrape."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pytest
from prometheus_client.parser import text_string_to_metric_families

from appliance.engine.observer import EngineObserver
from appliance.engine.sequence import FinishReason
from appliance.metrics import BUILD_LABELS, CONTENT_TYPE, Metrics


@dataclass
class FakeEngine:
    num_running: int = 2
    num_waiting: int = 3
    num_used_blocks: int = 10
    num_free_blocks: int = 90


@dataclass
class FakeBuild:
    model: str = "tiny"
    version: str = "1"
    generation: str | None = None

    def short(self) -> dict[str, str | None]:
        return {"weights": None, "server": "c"}


def value(metrics: Metrics, sample: str, **labels: str) -> float | None:
    for family in text_string_to_metric_families(metrics.render().decode()):
        for found in family.samples:
            if found.name == sample and found.labels == labels:
                return float(found.value)
    return None


def test_requests_are_counted_by_route_and_status() -> None:
    metrics = Metrics()
    metrics.observe_request("/generate", 200, 0.3)
    metrics.observe_request("/generate", 200, 0.5)
    metrics.observe_request("/generate", 400, 0.1)
    assert value(metrics, "appliance_requests_total", route="/generate", status="200") == 2
    assert value(metrics, "appliance_requests_total", route="/generate", status="400") == 1
    name = "appliance_request_duration_seconds"
    assert value(metrics, f"{name}_count", route="/generate") == 3
    assert value(metrics, f"{name}_sum", route="/generate") == pytest.approx(0.9)


def test_tokens_are_counted_as_they_come() -> None:
    metrics = Metrics()
    observer = metrics.observer("tiny")
    observer.on_start(12)
    observer.on_reuse(8)
    observer.on_draft(7, 3)
    observer.on_first_token(0.2)
    observer.on_next_tokens([0.02, 0.03])
    assert value(metrics, "appliance_prompt_tokens_total", model="tiny") == 12
    assert value(metrics, "appliance_reused_tokens_total", model="tiny") == 8
    assert value(metrics, "appliance_drafted_tokens_total", model="tiny") == 7
    assert value(metrics, "appliance_accepted_draft_tokens_total", model="tiny") == 3
    assert value(metrics, "appliance_generated_tokens_total", model="tiny") == 3
    assert value(metrics, "appliance_first_token_seconds_count", model="tiny") == 1
    assert value(metrics, "appliance_token_interval_seconds_sum", model="tiny") == pytest.approx(
        0.05
    )
    assert value(metrics, "appliance_token_interval_seconds_count", model="tiny") == 2
    assert value(metrics, "appliance_token_interval_seconds_bucket", model="tiny", le="0.02") == 1


def test_ends_and_rejections_are_counted_by_reason() -> None:
    metrics = Metrics()
    metrics.observer("tiny").on_end("cancelled")
    metrics.observer("tiny").on_end("failed")
    metrics.count_rejection("server_overloaded")
    assert (
        value(metrics, "appliance_finished_sequences_total", model="tiny", reason="cancelled") == 1
    )
    assert value(metrics, "appliance_finished_sequences_total", model="tiny", reason="failed") == 1
    assert value(metrics, "appliance_rejected_requests_total", reason="server_overloaded") == 1


def test_an_engine_failure_is_an_end_that_failed() -> None:
    metrics = Metrics()
    metrics.observer("tiny").on_end("stop")
    assert value(metrics, "appliance_engine_failures_total", model="tiny") == 0
    metrics.observer("tiny").on_end("failed")
    assert value(metrics, "appliance_engine_failures_total", model="tiny") == 1


def test_a_reason_is_shown_by_its_value() -> None:
    metrics = Metrics()
    observer: EngineObserver = metrics.observer("tiny")
    observer.on_end(FinishReason.TIMED_OUT)
    assert (
        value(metrics, "appliance_finished_sequences_total", model="tiny", reason="timed_out") == 1
    )


def test_steps_and_preemptions_are_observed() -> None:
    metrics = Metrics()
    metrics.observer("tiny").on_step(64, 0.25)
    metrics.observer("tiny").on_preempt()
    assert value(metrics, "appliance_step_tokens_sum", model="tiny") == 64
    assert value(metrics, "appliance_step_duration_seconds_sum", model="tiny") == 0.25
    assert value(metrics, "appliance_preempted_sequences_total", model="tiny") == 1


def test_the_engines_gauges_are_read_at_the_scrape() -> None:
    metrics, engine = Metrics(), FakeEngine()
    metrics.watch(FakeBuild(), engine)
    assert value(metrics, "appliance_running_sequences", model="tiny") == 2
    assert value(metrics, "appliance_waiting_sequences", model="tiny") == 3
    assert value(metrics, "appliance_kv_used_blocks", model="tiny") == 10
    assert value(metrics, "appliance_kv_total_blocks", model="tiny") == 100
    engine.num_used_blocks, engine.num_free_blocks = 0, 100
    assert value(metrics, "appliance_kv_used_blocks", model="tiny") == 0
    assert value(metrics, "appliance_kv_total_blocks", model="tiny") == 100


def test_a_build_is_one_series_a_model_that_says_what_runs() -> None:
    metrics = Metrics()
    metrics.watch(FakeBuild(version="1"), FakeEngine())
    metrics.watch(FakeBuild(version="2"), FakeEngine())
    labels = dict.fromkeys(BUILD_LABELS, "") | {"version": "2", "model": "tiny", "server": "c"}
    assert value(metrics, "appliance_build_info", **labels) == 1
    assert metrics.render().count(b"\nappliance_build_info{") == 1
    metrics.watch(FakeBuild(model="other"), FakeEngine())
    assert metrics.render().count(b"\nappliance_build_info{") == 2


def test_a_model_that_was_unloaded_keeps_its_counters_alone() -> None:
    metrics = Metrics()
    metrics.watch(FakeBuild(), FakeEngine())
    metrics.observer("tiny").on_start(12)
    metrics.unwatch("tiny")
    metrics.unwatch("never loaded")
    assert value(metrics, "appliance_running_sequences", model="tiny") is None
    assert b"\nappliance_build_info{" not in metrics.render()
    assert value(metrics, "appliance_prompt_tokens_total", model="tiny") == 12


def test_two_models_are_counted_apart() -> None:
    metrics = Metrics()
    for model, count in (("a", 1), ("b", 2)):
        metrics.observer(model).on_next_tokens([0.01] * count)
    found = [
        value(metrics, "appliance_token_interval_seconds_count", model=model) for model in "ab"
    ]
    assert found == [1, 2]


def test_readiness_goes_both_ways() -> None:
    metrics = Metrics()
    assert value(metrics, "appliance_ready") == 0
    metrics.set_ready(is_ready=True)
    assert value(metrics, "appliance_ready") == 1
    metrics.set_ready(is_ready=False)
    assert value(metrics, "appliance_ready") == 0


def test_every_series_bears_our_name_or_is_the_processs() -> None:
    metrics = Metrics()
    metrics.observe_request("/", 200, 1)
    metrics.observer("tiny").on_end("stop")
    names = re.findall(r"^# TYPE (\S+) (\S+)$", metrics.render().decode(), re.MULTILINE)
    ours = [(name, kind) for name, kind in names if name.startswith("appliance_")]
    others = [
        name for name, _ in names if not name.startswith(("appliance_", "process_", "python_"))
    ]
    assert others == []
    assert all(name.endswith("_total") == (kind == "counter") for name, kind in ours)
    assert not any(name.endswith("_created") for name, _ in names)


def test_two_metrics_do_not_share_a_registry() -> None:
    first, second = Metrics(), Metrics()
    first.observer("tiny").on_preempt()
    assert value(second, "appliance_preempted_sequences_total", model="tiny") is None


def test_the_content_type_is_that_of_the_text_format() -> None:
    assert CONTENT_TYPE == "text/plain; version=0.0.4; charset=utf-8"
