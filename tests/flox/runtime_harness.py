"""Starts scripts/runtime.py and talks to the service that it runs."""

from __future__ import annotations

import http.client
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.kernel_cache import KERNEL_CACHE

REPOSITORY = Path(__file__).parents[2]
SCRIPT = REPOSITORY / "scripts" / "runtime.py"
RUNTIME = REPOSITORY / "llama-runtime"
TIMEOUT_S = 60
# What a caller may set, and this machine may have set.
CALLERS = ("MODEL_PATH", "HOST", "PORT", "LLAMA_MODEL")


@dataclass
class Service:
    process: subprocess.Popen[str]
    url: str
    log: Path

    def request(self, method: str, path: str, body: object = None) -> tuple[int, str]:
        address = urlsplit(self.url).netloc
        with closing(http.client.HTTPConnection(address, timeout=TIMEOUT_S)) as connection:
            headers = {"Content-Type": "application/json"}
            connection.request(method, path, json.dumps(body) if body else None, headers)
            with connection.getresponse() as response:
                return response.status, response.read().decode()

    def wait(self) -> int:
        """The exit code, once the writer of the log has ended as well."""
        code = self.process.wait(TIMEOUT_S)
        assert self.process.stdout is not None
        self.process.stdout.read()
        return code


def environ_with(values: Mapping[str, str]) -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in CALLERS and not name.startswith("APPLIANCE_")
    }
    return {**kept, "APPLIANCE_CACHE_DIR": str(KERNEL_CACHE), **values}


def run(root: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """An activation that is meant to end by itself."""
    return subprocess.run(
        [sys.executable, str(SCRIPT), "--root", str(root), *arguments],
        env=environ_with(environ),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


@contextmanager
def started(root: Path, *arguments: str, **environ: str) -> Iterator[Service]:
    """The service once it is ready, in a process group of its own."""
    with subprocess.Popen(
        [sys.executable, str(SCRIPT), "--root", str(root), *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env=environ_with(environ),
        start_new_session=True,
    ) as process:
        try:
            for line in process.stdout or ():
                if match := re.fullmatch(r"  (http://\S+)\n", line):
                    yield Service(process, match[1], root / "cache" / "logs" / "llama.log")
                    return
            pytest.fail("the service ended before it was ready")
        finally:
            process.kill()
