"""From process start to the first token, where that time goes, and the memory it takes."""

from __future__ import annotations

import argparse
import json
import re
import signal
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from bench.report import write

TIMEOUT_S = 120.0
PROMPT = b'{"prompt": "Once upon a time", "max_new_tokens": 1, "temperature": 0}'

# The server's own log events that end a phase, in order.
PHASES = {
    "model opened": "imports of the server, model directory checked",
    "weights loaded": "engine, weights, key-value cache",
    "identity known": "tokenizer, template, hashes",
    "ready": "first forward passes",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """One start: seconds since the process was made, what it computed and held at its end."""

    phase_ends: dict[str, float]
    first_token_s: float
    cpu_s: float  # of the process itself, all threads
    peak_bytes: int  # resident, mapped weights included
    own_bytes: int  # of it what no file backs


def main(arguments: Sequence[str] = ()) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench startup", description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--name", default="startup", help="of the file under bench/results")
    chosen, flags = parser.parse_known_args(arguments)
    print(
        f"{chosen.runs} starts of `appliance serve {' '.join(flags)}`, after one that fills caches"
    )
    measure_start(flags)
    starts = []
    for run in range(chosen.runs):
        starts.append(measure_start(flags))
        print(f"  {run + 1}/{chosen.runs}  {describe(starts[-1])}")
    report(chosen.name, flags, starts)
    return 0


def describe(start: Start) -> str:
    return (
        f"first token {start.first_token_s:.2f} s, {start.cpu_s:.2f} s of CPU,"
        f" {start.peak_bytes / 1e6:,.0f} MB at its peak, {start.own_bytes / 1e6:,.0f} MB its own"
    )


def measure_start(flags: Sequence[str]) -> Start:
    """Start a server on a free port and ask it for one token the moment it is ready."""
    began_s = time.time()
    command = [sys.executable, "-m", "appliance", "serve", "--port", "0", "--log-level", "debug"]
    process = subprocess.Popen([*command, *flags], stderr=subprocess.PIPE, text=True)
    try:
        url, ends = follow(process.stderr or (), began_s)
        request = urllib.request.Request(
            f"{url}/generate", PROMPT, {"Content-Type": "application/json"}
        )
        urllib.request.urlopen(request, timeout=TIMEOUT_S).read()
        first_token_s = time.time() - began_s
        status = Path(f"/proc/{process.pid}/status").read_text()
        return Start(
            phase_ends=ends,
            first_token_s=first_token_s,
            cpu_s=cpu_seconds(process.pid),
            peak_bytes=amount(status, "VmHWM"),
            own_bytes=amount(status, "RssAnon"),
        )
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(TIMEOUT_S)


def follow(lines: Iterable[str], began_s: float) -> tuple[str, dict[str, float]]:
    """Read what the server says until it is ready: its address, and when each phase ended."""
    ends: dict[str, float] = {}
    url = None
    for line in lines:
        if match := re.match(r"\s+(http://[\d.]+:\d+)\s*$", line):
            url = match[1]
        if line.startswith("{"):
            event = json.loads(line)
            if event.get("event") in PHASES:
                ends[event["event"]] = datetime.fromisoformat(event["ts"]).timestamp() - began_s
        if url and "ready" in ends:
            return url, ends
    raise RuntimeError("the server ended before it was ready; run the command by hand")


def cpu_seconds(pid: int) -> float:
    """In user and kernel mode; /proc counts in hundredths of a second."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def amount(status: str, name: str) -> int:
    match = re.search(rf"{name}:\s+(\d+) kB", status)
    return int(match[1]) * 1024 if match else 0


def report(name: str, flags: Sequence[str], starts: list[Start]) -> None:
    median = {
        field: statistics.median(getattr(start, field) for start in starts)
        for field in ("first_token_s", "cpu_s", "peak_bytes", "own_bytes")
    }
    phases = median_phases(starts)
    print("\n  median seconds")
    for title, seconds in phases.items():
        print(f"  {seconds:6.2f}  {'#' * round(seconds * 20):<40} {title}")
    print(f"  {median['first_token_s']:6.2f}  process start to first token")
    print(f"  {median['cpu_s']:6.2f}  of CPU time")
    slowest_imports()
    figures = {key: round(value, 3) for key, value in median.items()}
    path = write(name, {"runs": len(starts), "flags": list(flags), **figures, "phases_s": phases})
    print(f"\n  written to {path}")


def median_phases(starts: list[Start]) -> dict[str, float]:
    spans: dict[str, list[float]] = {title: [] for title in [*PHASES.values(), "first request"]}
    for start in starts:
        before = 0.0
        for event, title in PHASES.items():
            spans[title].append(start.phase_ends[event] - before)
            before = start.phase_ends[event]
        spans["first request"].append(start.first_token_s - before)
    return {title: round(statistics.median(seconds), 3) for title, seconds in spans.items()}


def slowest_imports(count: int = 8) -> None:
    """What the imports of the server cost, by top-level module."""
    code = "import appliance.serve.wiring, appliance.engine.native.runner"
    result = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", code], capture_output=True, text=True, check=True
    )
    costs: dict[str, float] = {}
    for line in result.stderr.splitlines():
        if match := re.match(r"import time:\s+(\d+) \|\s+\d+ \|\s+([\w.]+)", line):
            top = match[2].partition(".")[0]
            costs[top] = costs.get(top, 0.0) + int(match[1]) / 1e6
    print("\n  own import time by package, seconds (traced, so slower than it is)")
    for name, seconds in sorted(costs.items(), key=lambda item: -item[1])[:count]:
        print(f"  {seconds:6.2f}  {name}")
