"""Runs work on untrusted input in a child process under kernel-enforced limits."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from appliance.text.confined_worker import LENGTH_BYTES

if TYPE_CHECKING:
    from pydantic import JsonValue

    from appliance.text.confined_worker import Reply

# An answer counts its own CPU time; the wall clock only catches a machine that stalls.
_WALL_TIME_FACTOR = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one answer may cost."""

    cpu_time_s: float = 1.0
    memory_bytes: int = 512 * 2**20


class ConfinedProcess:
    """Runs a worker module in a child process, one request at a time.

    A process, because a small piece of data (two deeply nested lists that a template compares, a
    schema of forty patterns) can keep native code busy for ever, and nothing inside the same
    process can end that. After a limit was passed the next request starts a new process.
    """

    def __init__(self, module: str, config: Mapping[str, JsonValue], limits: Limits) -> None:
        self._module = module
        self._config = dict(config)
        self._limits = limits
        self._lock = threading.Lock()
        self._running: _Running | None = None

    def start(self) -> Reply:
        """Start the process and return the worker's first reply."""
        with self._lock:
            return self._restart()

    def ask(self, request: JsonValue) -> Reply:
        """Send a request and return the reply. Blocks; callers wait for each other."""
        with self._lock:
            if self._running is not None and self._running.process.poll() is not None:
                self._end()  # it was killed while it was idle
            if self._running is None and "error" in (reply := self._restart()):
                return reply
            return self._ask(request)

    def close(self) -> None:
        """End the process; the next request would start it again."""
        with self._lock:
            self._end()

    def _restart(self) -> Reply:
        self._end()
        self._running = _Running(self._module, self._limits.cpu_time_s * _WALL_TIME_FACTOR)
        return self._ask(
            {
                "config": self._config,
                "cpu_time_s": self._limits.cpu_time_s,
                "memory_bytes": self._limits.memory_bytes,
            }
        )

    def _ask(self, message: JsonValue) -> Reply:
        assert self._running is not None  # noqa: S101
        try:
            reply = self._running.ask(message)
        except OSError as error:  # it took too long, or the kernel ended it
            status = self._running.end()
            is_late = isinstance(error, TimeoutError) or status == -signal.SIGPROF
            reply = {"error": "limit", "message": "time" if is_late else "memory"}
        if reply.get("error") == "limit":
            self._end()
        return reply

    def _end(self) -> None:
        if self._running is not None:
            self._running.end()
            self._running = None


class _Running:
    """The process and our end of its socket."""

    def __init__(self, module: str, wall_time_s: float) -> None:
        self._socket, its_end = socket.socketpair()
        self._socket.settimeout(wall_time_s)
        # Its environment holds what it needs to find our modules, and none of our secrets.
        environment = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "LC_ALL": "C.UTF-8"}
        with its_end:
            self.process = subprocess.Popen(  # noqa: S603  a module of ours
                [sys.executable, "-P", "-S", "-m", module],
                stdin=its_end.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,  # Ctrl-C is for the server, which ends us when it drained
            )
        self.end = weakref.finalize(self, _end, self.process, self._socket)

    def ask(self, message: JsonValue) -> Reply:
        payload = json.dumps(message).encode()
        self._socket.sendall(len(payload).to_bytes(LENGTH_BYTES) + payload)
        reply: Reply = json.loads(self._receive(int.from_bytes(self._receive(LENGTH_BYTES))))
        return reply

    def _receive(self, num_bytes: int) -> bytes:
        data = bytearray()
        while len(data) < num_bytes:
            piece = self._socket.recv(min(num_bytes - len(data), 2**20))
            if not piece:
                raise ConnectionError
            data += piece
        return bytes(data)


def _end(process: subprocess.Popen[bytes], connection: socket.socket) -> int:
    """End the process and return how it ended: minus the signal, if it was one."""
    connection.close()
    try:
        # If the kernel is ending it already, the status holds the kernel's reason.
        return process.wait(timeout=0.05)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()
