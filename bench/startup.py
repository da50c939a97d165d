"""From process start to the first token of the embedded model, and where that time goes."""

from __future__ import annotations

import json
import re
import signal
import statistics
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from datetime import datetime

from bench.report import write

RUNS = 5
TIMEOUT_S = 120.0
PROMPT = b'{"prompt": "Once upon a time", "max_new_tokens": 1, "temperature": 0}'

# The server's own log events that end a phase, in order.
PHASES = {
    "model opened": "imports of the server, model directory checked",
    "weights loaded": "import of torch, weights, key-value cache",
    "identity known": "tokenizer, template, hashes",
    "ready": "first forward passes",
}


@dataclass(frozen=True, slots=True)
class Start:
    """One start, in seconds since the process was made."""

    phase_ends: dict[str, float]
    first_token: float


def main() -> None:
    print(f"{RUNS} starts of the embedded model, each beside a bare `import torch`")
    starts: list[Start] = []
    imports: list[float] = []
    measure_start()  # warms the page cache
    for run in range(RUNS):
        imports.append(measure_import("torch"))
        starts.append(measure_start())
        first_s, bare_s = starts[-1].first_token, imports[-1]
        print(f"  {run + 1}/{RUNS}  first token {first_s:.2f} s  import torch {bare_s:.2f} s")
    report(starts, imports)


def measure_start() -> Start:
    """Start a server on a free port and ask it for one token the moment it is ready."""
    began_s = time.time()
    command = [sys.executable, "-m", "appliance", "serve", "--port", "0", "--log-level", "debug"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    lines = process.stderr or ()
    ends: dict[str, float] = {}
    url = None
    try:
        for line in lines:
            if match := re.match(r"\s+(http://[\d.]+:\d+)\s*$", line):
                url = match[1]
            if line.startswith("{"):
                event = json.loads(line)
                if event.get("event") in PHASES:
                    ends[event["event"]] = datetime.fromisoformat(event["ts"]).timestamp() - began_s
            if url and "ready" in ends:
                break
        request = urllib.request.Request(
            f"{url}/generate", PROMPT, {"Content-Type": "application/json"}
        )
        urllib.request.urlopen(request, timeout=TIMEOUT_S).read()
        return Start(ends, time.time() - began_s)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(TIMEOUT_S)


def measure_import(module: str) -> float:
    began_s = time.perf_counter()
    subprocess.run([sys.executable, "-c", f"import {module}"], check=True)
    return time.perf_counter() - began_s


def report(starts: list[Start], imports: list[float]) -> None:
    first_token = statistics.median(start.first_token for start in starts)
    ratio = statistics.median(
        start.first_token / seconds for start, seconds in zip(starts, imports, strict=True)
    )
    phases = {}
    previous: dict[int, float] = {}
    print("\n  median seconds")
    for event, title in PHASES.items():
        spans = []
        for index, start in enumerate(starts):
            spans.append(start.phase_ends[event] - previous.get(index, 0.0))
            previous[index] = start.phase_ends[event]
        phases[title] = round(statistics.median(spans), 3)
        print(f"  {phases[title]:6.2f}  {'#' * round(phases[title] * 20):<40} {title}")
    rest = statistics.median(s.first_token - s.phase_ends["ready"] for s in starts)
    phases["first request"] = round(rest, 3)
    print(f"  {rest:6.2f}  {'#' * round(rest * 20):<40} first request")
    print(
        f"  {first_token:6.2f}  process start to first token; {ratio:.2f} x a bare `import torch`"
    )
    slowest_imports()
    path = write(
        "startup",
        {
            "runs": len(starts),
            "first_token_s": round(first_token, 3),
            "import_torch_s": round(statistics.median(imports), 3),
            "ratio_to_import_torch": round(ratio, 3),
            "phases_s": phases,
        },
    )
    print(f"\n  written to {path}")


def slowest_imports(count: int = 8) -> None:
    """What the imports of the server cost, by top-level module."""
    code = "import appliance.wiring, appliance.engine.torch_runner"
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
