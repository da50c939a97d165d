"""Runs inside a confined process: one answer at a time, under kernel-enforced limits."""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol, TypedDict

LENGTH_BYTES = 8  # of the length before every message on the socket
_SOCKET = 0  # standard input is one end of a socket pair
_MAX_MESSAGE_CHARS = 500

ErrorKind = Literal["refused", "forbidden", "invalid", "limit", "failed"]


class Start(TypedDict):
    """The first message: what the worker is made of, and its limits."""

    config: Mapping[str, Any]
    cpu_time_s: float
    memory_bytes: int


class Reply(TypedDict, total=False):
    """Either the text, or the kind of error and its message."""

    text: str
    error: ErrorKind
    message: str


class WorkerError(Exception):
    """An error whose kind and message go to the parent process."""

    def __init__(self, kind: ErrorKind, message: str) -> None:
        super().__init__(message)
        self.kind: ErrorKind = kind


class Worker(Protocol):
    def prepare(self) -> None:
        """Import what Python imports late, while files can still be opened."""

    def start(self) -> str:
        """Do the work that is needed once, under the limits."""

    def answer(self, request: Any) -> str:
        """Answer one request, under the limits."""


def serve(make_worker: Callable[[Mapping[str, Any]], Worker]) -> None:
    """Answer requests until the parent process is gone."""
    start: Start = json.loads(_receive())
    worker = make_worker(start["config"])
    worker.prepare()
    _limit_resources(start["memory_bytes"])
    _reply(worker.start, start["cpu_time_s"])
    while True:
        request = json.loads(_receive())
        _reply(lambda: worker.answer(request), start["cpu_time_s"])  # noqa: B023  called at once


def _limit_resources(memory_bytes: int) -> None:
    """Allow no more memory, files, sockets or processes than this process has now."""
    if sys.platform != "darwin":  # which knows no such limit
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))


def _reply(work: Callable[[], str], cpu_time_s: float) -> None:
    # The signal has no handler: the kernel ends the process in any C code.
    signal.setitimer(signal.ITIMER_PROF, cpu_time_s)
    reply: Reply
    try:
        reply = {"text": work()}
    except WorkerError as error:
        reply = {"error": error.kind, "message": str(error)[:_MAX_MESSAGE_CHARS]}
    except (MemoryError, RecursionError, OverflowError):
        reply = {"error": "limit", "message": "memory"}
    except Exception as error:  # noqa: BLE001  a template can raise anything
        reply = {"error": "failed", "message": str(error)[:_MAX_MESSAGE_CHARS]}
    payload = json.dumps(reply).encode()
    signal.setitimer(signal.ITIMER_PROF, 0)
    _send(payload)


def _receive() -> bytes:
    return _read_exactly(int.from_bytes(_read_exactly(LENGTH_BYTES)))


def _read_exactly(num_bytes: int) -> bytes:
    data = bytearray()
    while len(data) < num_bytes:
        piece = os.read(_SOCKET, num_bytes - len(data))
        if not piece:
            sys.exit(0)
        data += piece
    return bytes(data)


def _send(payload: bytes) -> None:
    data = memoryview(len(payload).to_bytes(LENGTH_BYTES) + payload)
    while data:
        data = data[os.write(_SOCKET, data) :]
