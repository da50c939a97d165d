"""`appliance chat` as a program in a terminal: the keys that end an answer and the program."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from tests.unit.cli.scripted_server import (
    Received,
    Reply,
    ScriptedServer,
    chat_event,
    stream_reply,
)

CTRL_D = b"\x04"


def read_until(terminal: int, text: bytes) -> bytes:
    seen = b""
    while text not in seen:
        try:
            seen += os.read(terminal, 4096)
        except OSError:  # nobody is left on the other side
            pytest.fail(f"the program ended before it said {text!r}; it said {seen!r}")
    return seen


def test_ctrl_c_stops_the_answer_and_ctrl_d_leaves() -> None:
    client_left = threading.Event()

    def endless(_: Received) -> Reply:
        def words() -> Iterator[bytes]:
            try:
                while not client_left.wait(0.01):
                    yield chat_event("again ")
            finally:
                client_left.set()

        return stream_reply(words())

    terminal, program_side = pty.openpty()
    with ScriptedServer({"POST /v1/chat/completions": endless}) as server:
        command = [sys.executable, "-m", "appliance", "chat", "--model", "m", "--url", server.url]
        environ = {**os.environ, "NO_COLOR": "1", "TERM": "dumb"}
        with subprocess.Popen(
            command, stdin=program_side, stdout=program_side, stderr=program_side, env=environ
        ) as program:
            os.close(program_side)  # the program's copy is the last: reads end when it ends
            watchdog = threading.Timer(60, program.kill)
            watchdog.start()
            read_until(terminal, b"> ")
            os.write(terminal, b"Go on\n")
            read_until(terminal, b"again again")
            program.send_signal(signal.SIGINT)
            if not read_until(terminal, b"stopped").endswith(b"> "):  # both may come at once
                read_until(terminal, b"> ")
            os.write(terminal, CTRL_D)
            assert program.wait() == 0
            watchdog.cancel()
        assert client_left.wait(5)
    os.close(terminal)
