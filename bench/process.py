"""Starts what is measured, each in a process group of its own and under a time limit."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

MAX_SHOWN_CHARS = 600
END_TIMEOUT_S = 15.0
QUIET_WINDOW_S = 0.4
QUIET_SHARE = 0.15  # of one core


class ProcessFailed(Exception):
    """A measured process ended badly; the text is the end of what it wrote."""


def run(
    command: list[str],
    *,
    timeout_s: float,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    log: Path | None = None,
) -> str:
    """Standard output of a command that ended well; standard error goes to it, too, with `log`."""
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(env),
        cwd=cwd,
        start_new_session=True,
        text=True,
        errors="replace",
    ) as process:
        try:
            output, errors = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            raise ProcessFailed(f"not done after {timeout_s:.0f} s: {_shorten(command)}") from None
        finally:
            end_group(process)
    if log is not None:
        with log.open("a", encoding="utf-8") as file:
            file.write(f"$ {' '.join(command)}\n{output}\n{errors}\n")
    if process.returncode:
        raise ProcessFailed(
            f"exit code {process.returncode}: {_shorten(command)}: {_tail(errors or output)}"
        )
    return output


def run_json(command: list[str], **options: object) -> dict[str, object]:
    """The JSON object on the last line of a worker's output."""
    output = run(command, **options)  # type: ignore[arg-type]
    try:
        value: dict[str, object] = json.loads(output.strip().splitlines()[-1])
    except (ValueError, IndexError):
        raise ProcessFailed(f"{_shorten(command)} wrote no JSON: {_tail(output)}") from None
    return value


@contextmanager
def server(command: list[str], *, env: Mapping[str, str], log: Path) -> Iterator[Server]:
    """A server that writes to `log`, ended with all its children on leaving."""
    with log.open("wb") as file:
        started_at_s = time.perf_counter()
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment(env),
            start_new_session=True,
        )
    try:
        yield Server(process, started_at_s, log)
    finally:
        process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(END_TIMEOUT_S)
        end_group(process)


@dataclass(frozen=True, slots=True)
class Server:
    """A server process and when it was started, by the clock of `time.perf_counter`."""

    process: subprocess.Popen[bytes]
    started_at_s: float
    log: Path

    def check_alive(self) -> None:
        code = self.process.poll()
        if code is not None:
            text = self.log.read_text(errors="replace")
            raise ProcessFailed(f"the server ended with {code}: {_tail(text)}")

    def peak_memory_bytes(self) -> int:
        """The peaks of all its processes, added up; what they share now is counted once.

        Pages of files that a process maps are in it.
        """
        return sum(map(_peak_bytes, _tree(self.process.pid)))


def environment(changes: Mapping[str, str] | None) -> dict[str, str]:
    """Ours, without what would reconfigure a server or forbid Python to keep its byte code."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("APPLIANCE_", "PYTHON", "OMP_", "MODEL_PATH"))
        and name not in {"HOST", "PORT", "VIRTUAL_ENV"}
    }
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "DO_NOT_TRACK": "1"}
    return {**kept, **offline, **(changes or {})}


def end_group(process: subprocess.Popen[bytes] | subprocess.Popen[str]) -> None:
    """End what is left of the group that this process leads."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port


class Neighbours:
    """How much of the machine others took while something was measured."""

    def __init__(self) -> None:
        self._began_s = time.perf_counter()
        self._busy_s = _busy_s()
        self._own_s = _own_s()

    def share(self) -> float | None:
        """Of one core, by everything that is neither this process nor an ended child of it."""
        if self._busy_s is None or (busy_s := _busy_s()) is None:
            return None
        others_s = busy_s - self._busy_s - (_own_s() - self._own_s)
        return round(max(others_s, 0) / (time.perf_counter() - self._began_s), 3)


def wait_for_quiet(limit_s: float) -> None:
    """Until others take little of the machine, but no longer than `limit_s`."""
    end_s = time.perf_counter() + limit_s
    while time.perf_counter() < end_s:
        neighbours = Neighbours()
        time.sleep(QUIET_WINDOW_S)
        if (neighbours.share() or 0.0) < QUIET_SHARE:
            return


def _own_s() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def _busy_s() -> float | None:
    stat = Path("/proc/stat")
    if not stat.exists():
        return None
    user, nice, system, _, _, irq, softirq, steal = map(int, stat.read_text().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def _tree(pid: int) -> list[int]:
    found = [pid]
    for parent in found:
        children = Path(f"/proc/{parent}/task/{parent}/children")
        tasks = Path(f"/proc/{parent}/task")
        if not children.exists():
            continue
        for task in tasks.iterdir():
            found += map(int, (task / "children").read_text().split())
    return found


def _peak_bytes(pid: int) -> int:
    """The most that was resident, less what of today's pages is other processes' part."""
    folder = Path(f"/proc/{pid}")
    try:
        status = _kilobytes(folder / "status")
        proportional = _kilobytes(folder / "smaps_rollup")["Pss"]
    except (OSError, KeyError):
        return 0  # it ended, or is the kernel's
    return 1024 * (status["VmHWM"] - status["VmRSS"] + proportional)


def _kilobytes(path: Path) -> dict[str, int]:
    lines = [line.split() for line in path.read_text().splitlines()]
    return {line[0][:-1]: int(line[1]) for line in lines if line[-1:] == ["kB"]}


def _shorten(command: list[str]) -> str:
    text = " ".join(command)
    return text if len(text) <= 200 else f"{text[:200]}…"


def _tail(text: str) -> str:
    return " ".join(text.split())[-MAX_SHOWN_CHARS:]
