"""Reads a cluster's objects and asks its servers, through kubectl and the user's credentials."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import selectors
import subprocess
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from appliance.errors import ReleaseError
from appliance_release.manifests.kubernetes_manifest import mapping, sequence
from appliance_release.programs import ProgramMissing, Run, run_program

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

KINDS = "deployments.apps,replicasets.apps,pods,events"
MAX_BYTES = 1_000_000
KEY_VARIABLE = "APPLIANCE_CLIENT_API_KEY"  # the same as of `appliance chat`
_FORWARDING = re.compile(r"Forwarding from 127\.0\.0\.1:(\d+) ->")


class Cluster(Protocol):
    """The answers that a rollout needs; tests pass a recording."""

    def objects(self, namespace: str) -> list[dict[str, object]]: ...

    def version(self, namespace: str, pod: str, port: int) -> dict[str, object]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Kubectl:
    """`flags` choose the cluster, as in `--context NAME`; `api_key` is for servers that want it."""

    flags: Sequence[str] = ()
    api_key: str | None = field(default=None, repr=False)
    timeout_s: float = 20.0
    run: Run = field(default=run_program)

    def objects(self, namespace: str) -> list[dict[str, object]]:
        """Returns Deployments, ReplicaSets, pods and events of a namespace, by one request."""
        command = self._command("get", KINDS, "--namespace", namespace, "--output", "json")
        try:
            found = json.loads(self.run(command, timeout_s=self.timeout_s + 10))
        except ValueError:
            raise ReleaseError("kubectl get printed something that is not JSON.") from None
        return [mapping(item) for item in sequence(mapping(found).get("items"))]

    def version(self, namespace: str, pod: str, port: int) -> dict[str, object]:
        """Asks one pod for GET /version, through a forwarded port.

        The API server's proxy would send its own name as Host, which the server refuses, and a
        NetworkPolicy may block it.
        """
        deadline_s = time.monotonic() + self.timeout_s
        command = self._command(
            "port-forward", "--namespace", namespace, "--address", "127.0.0.1", f"pod/{pod}",
            f":{port}",
        )  # fmt: skip
        with _running(command) as process:
            local_port = _forwarded_port(process, deadline_s)
            remaining_s = max(1.0, deadline_s - time.monotonic())
            return _get_version(local_port, remaining_s, self.api_key)

    def _command(self, *arguments: str) -> list[str]:
        return ["kubectl", f"--request-timeout={self.timeout_s:g}s", *self.flags, *arguments]


@contextlib.contextmanager
def _running(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    try:
        process = subprocess.Popen(  # noqa: S603 - a list of arguments, none of which is code
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    except FileNotFoundError:
        raise ProgramMissing("kubectl is not installed, or not on the PATH.") from None
    with process:
        try:
            yield process
        finally:
            process.kill()


def _forwarded_port(process: subprocess.Popen[str], deadline_s: float) -> int:
    """Returns the local port, which kubectl prints once it listens."""
    output, errors = process.stdout, process.stderr
    if output is None or errors is None:
        raise TypeError("the process must be started with pipes")
    with selectors.DefaultSelector() as selector:
        selector.register(output, selectors.EVENT_READ)
        if not selector.select(max(0.0, deadline_s - time.monotonic())):
            raise ReleaseError("kubectl port-forward did not begin in time.")
    line = output.readline()
    match = _FORWARDING.match(line)
    if match is None:
        process.kill()
        raise ReleaseError(f"kubectl port-forward said: {errors.read().strip() or line}")
    return int(match[1])


def _get_version(port: int, timeout_s: float, api_key: str | None) -> dict[str, object]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    try:
        headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
        connection.request("GET", "/version", headers=headers)
        answer = connection.getresponse()
        body = answer.read(MAX_BYTES)
        found = json.loads(body) if answer.status == http.client.OK else None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise ReleaseError(f"it did not answer GET /version: {error}.") from None
    finally:
        connection.close()
    if answer.status == http.client.UNAUTHORIZED:
        raise ReleaseError(f"it wants a key for GET /version. Set {KEY_VARIABLE} to a valid one.")
    if not isinstance(found, dict):
        raise ReleaseError(f"it answered GET /version with status {answer.status}.")
    return found
