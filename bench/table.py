"""Figures as lines of text: a sample's while it runs, and the goals at the end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.summary import Record

UNITS = {
    "_tokens_per_s": ("tok/s", 1.0),
    "_s": ("ms", 1000.0),
    "_bytes": ("MB", 1e-6),
}


def shown(figures: dict[str, Any]) -> str:
    """One line of what a measurement gave."""
    parts = [
        f"{name} {number(figures[name])} tok/s" for name in ("decode", "prefill") if name in figures
    ]
    if "throughput" in figures:
        parts.append(_load(figures))
    if "start_to_first_token" in figures:
        parts.append(f"first token {figures['start_to_first_token']:.2f} s")
        parts.append(f"peak {figures['peak_memory_bytes'] / 1e6:.0f} MB")
    for concurrency, load in figures.get("load", {}).items():
        parts.append(f"x{concurrency} {_load(load)}")
    return "  ".join(parts)


def _load(figures: dict[str, float]) -> str:
    first_ms, gap_ms = 1000 * figures["ttft_p99"], 1000 * figures["itl_p99"]
    return f"{number(figures['throughput'])} tok/s (p99 {first_ms:.0f}/{gap_ms:.1f} ms)"


def quantity(record: Record, name: str) -> str:
    value = record[name]
    if not isinstance(value, float | int):
        return "-"
    metric = str(record["metric"])
    unit, factor = next(found for suffix, found in UNITS.items() if metric.endswith(suffix))
    return f"{number(value * factor)} {unit}"


def number(value: float) -> str:
    """Three figures, and never an exponent."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def goal_table(records: Sequence[Record]) -> str:
    """Every promise beside what was measured."""
    rows = [("metric", "model", "x", "ours", "peer", "", "ratio", "goal", "")]
    for record in records:
        if "goal" not in record:
            continue
        ratio = record["ratio"]
        sign = "≥" if record["better_is"] == "higher" else "≤"
        rows.append(
            (
                str(record["metric"]),
                f"{record['model']} {record['precision']}",
                str(record["concurrency"] or ""),
                quantity(record, "ours"),
                quantity(record, "peer"),
                str(record["peer_name"]),
                f"{ratio:.2f}" if isinstance(ratio, float) else "-",
                f"{sign} {record['goal']}",
                "" if ratio is None else "met" if record["meets_goal"] else "SHORT",
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)
