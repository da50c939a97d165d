"""What is asked of kubectl, and how a server behind a forwarded port is asked."""

from __future__ import annotations

import http.server
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.errors import ReleaseError
from appliance_release.programs import ProgramMissing
from appliance_release.rollout.kubectl import Kubectl

ANSWER = {"name": "llama-appliance", "generation": "a/b:2"}

# Stands in for kubectl: prints what kubectl prints when it forwards, to a port that is there.
FORWARDER = """#!/bin/sh
echo "$@" > "{folder}/arguments"
{before}
echo "Forwarding from 127.0.0.1:{port} -> 8000"
exec sleep 60
"""


class Server(http.server.BaseHTTPRequestHandler):
    answers: tuple[int, bytes] = (200, json.dumps(ANSWER).encode())

    key: str | None = None  # what it wants of those who ask

    def do_GET(self) -> None:
        status, body = self.answers if self.path == "/version" else (404, b"")
        if self.key is not None and self.headers["Authorization"] != f"Bearer {self.key}":
            status, body = 401, b"{}"
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join(10)


@pytest.fixture
def kubectl(tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "kubectl"
    path.write_text(FORWARDER.format(folder=tmp_path, before="", port=port))
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return path


def test_objects_are_asked_for_in_one_command() -> None:
    asked: list[list[str]] = []

    def run(command: list[str], /, *, timeout_s: float = 60.0) -> str:
        asked.append(command)
        return '{"items": [{"kind": "Pod"}]}'

    cluster = Kubectl(flags=["--context", "x"], run=run)
    assert cluster.objects("llama") == [{"kind": "Pod"}]
    assert asked == [
        ["kubectl", "--request-timeout=20s", "--context", "x", "get",
         "deployments.apps,replicasets.apps,pods,events", "--namespace", "llama", "--output",
         "json"]
    ]  # fmt: skip


def test_what_is_no_json_is_refused() -> None:
    with pytest.raises(ReleaseError, match="kubectl get printed something that is not JSON"):
        Kubectl(run=lambda _, *, timeout_s=0.0: "W0101 a warning").objects("llama")


def test_a_server_is_asked_through_a_forwarded_port(kubectl: Path) -> None:
    assert Kubectl().version("llama", "llama-1", 8000) == ANSWER
    arguments = (kubectl.parent / "arguments").read_text()
    assert arguments.endswith(
        "port-forward --namespace llama --address 127.0.0.1 pod/llama-1 :8000\n"
    )


@pytest.mark.usefixtures("kubectl")
def test_a_server_with_keys_is_asked_with_the_callers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Server, "key", "ap-1")
    assert Kubectl(api_key="ap-1").version("llama", "llama-1", 8000) == ANSWER
    with pytest.raises(ReleaseError, match=r"wants a key .* Set APPLIANCE_CLIENT_API_KEY"):
        Kubectl().version("llama", "llama-1", 8000)
    assert "ap-1" not in repr(Kubectl(api_key="ap-1"))


def test_kubectls_own_words_are_passed_on(kubectl: Path) -> None:
    kubectl.write_text("#!/bin/sh\necho 'error: forbidden' >&2\nexit 1\n")
    with pytest.raises(ReleaseError, match="kubectl port-forward said: error: forbidden"):
        Kubectl().version("llama", "llama-1", 8000)


def test_a_forward_that_never_begins_is_given_up(kubectl: Path) -> None:
    kubectl.write_text("#!/bin/sh\nexec sleep 60\n")
    with pytest.raises(ReleaseError, match="did not begin in time"):
        Kubectl(timeout_s=0.3).version("llama", "llama-1", 8000)


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [(403, b"{}", "with status 403"), (200, b"<", "did not answer"), (200, b"[]", "status 200")],
)
@pytest.mark.usefixtures("kubectl")
def test_what_is_no_version_is_refused(
    status: int, body: bytes, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Server, "answers", (status, body))
    with pytest.raises(ReleaseError, match=said):
        Kubectl().version("llama", "llama-1", 8000)


def test_without_kubectl_that_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ProgramMissing, match="kubectl is not installed"):
        Kubectl().version("llama", "llama-1", 8000)
