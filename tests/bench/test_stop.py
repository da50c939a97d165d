"""A bench that is told to end takes what it measures with it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

from bench.participant import REPOSITORY
from tests.bench.test_process import is_gone

CODE = """
import asyncio, pathlib, signal, sys, uvloop
from bench.compare import _stop
from bench.process import server
signal.signal(signal.SIGTERM, _stop)
folder = pathlib.Path(sys.argv[1])
async def main():
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    with server(command, env={}, log=folder / "log") as child:
        (folder / "partial").write_text(str(child.process.pid))
        (folder / "partial").rename(folder / "pid")
        await asyncio.sleep(60)
with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
    runner.run(main())
"""


def test_sigterm_ends_the_server_under_load_too(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", CODE, str(tmp_path)], cwd=REPOSITORY)
    end_s = time.monotonic() + 30
    while not (tmp_path / "pid").exists() and time.monotonic() < end_s:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 128 + signal.SIGTERM
    assert is_gone(int((tmp_path / "pid").read_text()))
