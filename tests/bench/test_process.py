"""Processes under measurement: time limits, what is left of them, what they say."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from bench.process import Neighbours, ProcessFailed, environment, run, run_json, server

PYTHON = sys.executable


def test_a_process_that_takes_too_long_is_ended_with_its_children(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    child = "import time; time.sleep(60)"
    code = (
        "import subprocess, sys, pathlib, time\n"
        f"child = subprocess.Popen([sys.executable, '-c', {child!r}])\n"
        f"pathlib.Path({str(pid_file)!r}).write_text(str(child.pid))\n"
        "time.sleep(60)\n"
    )
    with pytest.raises(ProcessFailed, match="not done after 2 s"):
        run([PYTHON, "-c", code], timeout_s=2)
    assert is_gone(int(pid_file.read_text()))


def test_a_failure_says_what_the_process_said_last() -> None:
    with pytest.raises(ProcessFailed, match=r"exit code 3.*too little memory"):
        run([PYTHON, "-c", "raise SystemExit(print('too little memory') or 3)"], timeout_s=60)


def test_figures_are_the_last_line_whatever_a_library_printed_before() -> None:
    code = "print('loading'); print('{\"decode\": 2.5}')"
    assert run_json([PYTHON, "-c", code], timeout_s=60) == {"decode": 2.5}


def test_no_figures_are_a_failure() -> None:
    with pytest.raises(ProcessFailed, match="wrote no JSON"):
        run_json([PYTHON, "-c", "print('hello')"], timeout_s=60)


def test_a_server_is_ended_and_a_dead_one_is_noticed(tmp_path: Path) -> None:
    code = "print('the port is taken', flush=True)"
    with server([PYTHON, "-c", code], env={}, log=tmp_path / "log") as dead:
        dead.process.wait(60)
        with pytest.raises(ProcessFailed, match="ended with 0: the port is taken"):
            dead.check_alive()
    code = "import time; data = b'x' * 50_000_000; print('up', flush=True); time.sleep(60)"
    with server([PYTHON, "-c", code], env={}, log=tmp_path / "log") as alive:
        while not (tmp_path / "log").read_text():
            time.sleep(0.01)
        alive.check_alive()
        if sys.platform == "linux":
            assert alive.peak_memory_bytes() > 50_000_000
    assert is_gone(alive.process.pid)


def test_what_is_measured_does_not_see_how_we_were_configured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("APPLIANCE_ENGINE", "torch")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    found = environment({"EXTRA": "1"})
    assert not {"APPLIANCE_ENGINE", "OMP_NUM_THREADS"} & found.keys()
    assert (found["EXTRA"], found["HF_HUB_OFFLINE"]) == ("1", "1")


def test_our_own_work_is_not_a_neighbours() -> None:
    neighbours = Neighbours()
    run([PYTHON, "-c", "sum(range(10_000_000))"], timeout_s=60)
    share = neighbours.share()
    assert share is None or 0 <= share <= (os.cpu_count() or 1)


def is_gone(pid: int) -> bool:
    """Also when nobody has collected it yet; the kernel takes a moment to end a process."""
    end_s = time.monotonic() + 10
    while time.monotonic() < end_s:
        try:
            os.kill(pid, 0)
            if "Z" in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2][:3]:
                return True
        except (ProcessLookupError, FileNotFoundError):
            return True
        time.sleep(0.01)
    return False
