"""A server with a fake model: in this process for most tests, on a port where a socket matters."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import httpx2
import openai
import pytest
import uvicorn

from appliance.api.http.state import ApplianceState
from appliance.completion import CompletionService, ListedModel, Served
from appliance.metrics import Metrics
from appliance.models.identity import Identity
from appliance.models.table import LOADING, ModelTable
from appliance.serve.app import create_app
from appliance.serve.http1 import BoundedHttpProtocol
from tests.api.fake_service import FakeService

WAIT_S = 10  # for what happens at once, on any machine
MODEL = "tiny-llama"
MAX_BODY_BYTES = 200_000
MAX_CONTEXT_TOKENS = 1024


def make_identity() -> Identity:
    return Identity(
        model=MODEL,
        weights="a" * 64,
        tokenizer="b" * 64,
        template=None,
        server="c" * 64,
        root=None,
        generation="7",
        version="0.0.0",
        engine="fake",
        dtype="float32",
        device="cpu",
        num_threads=1,
        isa="x86-64",
        arithmetic="d" * 64,
    )


def make_state(
    service: FakeService | None = None, *, bound_host: str = "127.0.0.1"
) -> ApplianceState:
    """Ready if there is a service, else loading."""
    state = ApplianceState(
        metrics=Metrics(),
        models=ModelTable(ListedModel(name=MODEL, status="loading", reason=LOADING)),
        max_body_bytes=MAX_BODY_BYTES,
        bound_host=bound_host,
        generation="7",
    )
    if service is not None:
        become_ready(state, service)
    return state


def become_ready(
    state: ApplianceState,
    service: CompletionService,
    identity: Identity | None = None,
    *,
    max_choices: int | None = None,
) -> None:
    """Let `service` answer as the one model."""
    identity = identity or make_identity()
    served = Served(
        completions=service,
        embedder=service,
        identity=identity,
        max_context_tokens=MAX_CONTEXT_TOKENS,
        max_choices=max_choices,
    )
    state.models = ModelTable(ListedModel(name=identity.model, status="ready", served=served))
    state.become_ready()


@dataclass(frozen=True)
class LiveServer:
    """Where a server listens and what it serves."""

    url: str
    model: str


@dataclass(frozen=True)
class FakeServer(LiveServer):
    """A live server whose answers a test can decide."""

    service: FakeService
    state: ApplianceState

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])


@contextlib.contextmanager
def serve_on_thread(state: ApplianceState) -> Iterator[int]:
    """The port that a real uvicorn serves `state` on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(
            uvicorn.Config(
                create_app(state),
                http=BoundedHttpProtocol,
                log_config=None,
                lifespan="off",
                timeout_graceful_shutdown=1,
            )
        )
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            yield int(listener.getsockname()[1])
        finally:
            server.should_exit = True
            thread.join(10)


@pytest.fixture(scope="session")
def session_server() -> Iterator[FakeServer]:
    service = FakeService()
    state = make_state(service)
    with serve_on_thread(state) as port:
        yield FakeServer(f"http://127.0.0.1:{port}", MODEL, service, state)


@pytest.fixture
def fake_server(session_server: FakeServer) -> FakeServer:
    """One server for all tests, as good as new for each."""
    session_server.service.reset()
    return session_server


@pytest.fixture
def live_server(fake_server: FakeServer) -> LiveServer:
    """What the client tests talk to; end-to-end tests put the real server here."""
    return fake_server


@pytest.fixture
def service(fake_server: FakeServer) -> FakeService:
    return fake_server.service


@pytest.fixture
def http(fake_server: FakeServer) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=fake_server.url, timeout=10) as client:
        yield client


@pytest.fixture
def client(live_server: LiveServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=f"{live_server.url}/v1", api_key="unused", max_retries=0, timeout=60
    ) as client:
        yield client


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
