"""Tests begin with the signals of a terminal, and do without torch where it is not installed."""

from __future__ import annotations

import signal
from collections.abc import Generator
from importlib.util import find_spec
from typing import Any

import pytest

# A shell has its background jobs ignore SIGINT, and they hand that on to every process they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# What the lean installation leaves out; what needs one of them is skipped there.
ABSENT = tuple(
    name
    for name in ("accelerate", "huggingface_hub", "safetensors", "torch", "transformers")
    if find_spec(name) is None
)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """A file that imports what is absent is skipped as a whole."""
    report = yield
    if report.outcome == "failed" and (name := absent_in(report.longreprtext)):
        report.outcome = "skipped"
        report.longrepr = (str(collector.path), 0, f"Skipped: {name} is not installed")
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    error: Any = None if call.excinfo is None else call.excinfo.value
    if isinstance(error, ModuleNotFoundError) and error.name in ABSENT:
        report.outcome = "skipped"
        report.longrepr = (str(item.path), 0, f"Skipped: {error.name} is not installed")
    return report


def absent_in(text: str) -> str | None:
    return next((name for name in ABSENT if f"No module named '{name}'" in text), None)
