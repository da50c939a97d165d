"""Health, identity and metrics at each point of a server's life."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import httpx2
import pytest

import appliance
from appliance.api.http.state import ApplianceState
from appliance.serve.app import create_app
from tests.api.conftest import MODEL, become_ready, make_identity, make_state
from tests.api.fake_service import FakeService

pytestmark = pytest.mark.anyio

POSTS = [
    ("/generate", {"prompt": "Hi"}),
    ("/v1/completions", {"model": MODEL, "prompt": "Hi"}),
    ("/v1/chat/completions", {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}]}),
    ("/v1/embeddings", {"model": MODEL, "input": "Hi"}),
    ("/tokenize", {"prompt": "Hi"}),
    ("/detokenize", {"tokens": [1]}),
]


@pytest.fixture
def state() -> ApplianceState:
    return make_state()


@pytest.fixture
async def app(state: ApplianceState) -> AsyncIterator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(create_app(state))
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
        yield client


@pytest.mark.parametrize("path", ["/health", "/readyz"])
async def test_readiness_follows_the_servers_life(
    state: ApplianceState, app: httpx2.AsyncClient, path: str
) -> None:
    loading = await app.get(path)
    assert (loading.status_code, loading.json()["status"]) == (503, "loading")
    assert loading.json()["reason"] == "The model is being loaded."

    become_ready(state, FakeService())
    ready = await app.get(path)
    assert ready.status_code == 200
    assert ready.json() == {
        "status": "ok",
        "model": MODEL,
        "generation": "7",
        "version": appliance.__version__,
        "fingerprint": make_identity().fingerprint,
        "hashes": {
            "weights": "a" * 12,
            "tokenizer": "b" * 12,
            "template": None,
            "server": "c" * 12,
        },
        "models": [{"model": MODEL, "status": "ready", "required": True, "reason": ""}],
    }
    assert ready.headers["cache-control"] == "no-store"

    state.fail("The last forward passes all failed.")
    failed = await app.get(path)
    assert (failed.status_code, failed.json()["status"]) == (503, "failed")
    assert failed.json()["reason"] == "The last forward passes all failed."

    state.recover()
    assert (await app.get(path)).status_code == 200

    state.drain()
    draining = await app.get(path)
    assert (draining.status_code, draining.json()["status"]) == (503, "draining")


async def test_a_server_that_drains_while_it_loads_does_not_become_ready(
    state: ApplianceState, app: httpx2.AsyncClient
) -> None:
    state.drain()
    become_ready(state, FakeService())
    assert (await app.get("/health")).json()["status"] == "draining"


async def test_liveness_is_about_progress_and_not_about_readiness(
    state: ApplianceState, app: httpx2.AsyncClient
) -> None:
    assert (await app.get("/livez")).json() == {"status": "alive"}
    state.is_stalled = lambda: True
    stalled = await app.get("/livez")
    assert (stalled.status_code, stalled.json()) == (503, {"status": "stalled"})


@pytest.mark.parametrize(("path", "body"), POSTS)
async def test_until_the_model_answers_requests_are_told_to_come_back(
    app: httpx2.AsyncClient, path: str, body: object
) -> None:
    response = await app.post(path, json=body)
    assert response.status_code == 503
    assert response.headers["retry-after"] == "1"
    assert response.json()["error"]["code"] == "not_ready"
    assert "being loaded" in response.json()["error"]["message"]


@pytest.mark.parametrize(("path", "body"), POSTS)
async def test_while_it_drains_the_engine_decides_what_is_still_served(
    state: ApplianceState, app: httpx2.AsyncClient, path: str, body: object
) -> None:
    become_ready(state, FakeService())
    state.drain()
    assert (await app.post(path, json=body)).status_code == 200


@pytest.mark.parametrize("path", ["/v1/models", f"/v1/models/{MODEL}"])
async def test_there_are_no_models_until_one_answers(app: httpx2.AsyncClient, path: str) -> None:
    assert (await app.get(path)).status_code == 503


async def test_the_version_is_known_before_the_model(
    state: ApplianceState, app: httpx2.AsyncClient
) -> None:
    before = (await app.get("/version")).json()
    assert before == {
        "name": "llama-appliance",
        "version": appliance.__version__,
        "generation": "7",
        "model": None,
        "fingerprint": None,
        "hashes": None,
        "runtime": None,
        "models": [{"model": MODEL, "fingerprint": None, "hashes": None, "runtime": None}],
    }
    become_ready(state, FakeService())
    after = (await app.get("/version")).json()
    assert after["hashes"]["weights"] == "a" * 64
    assert after["runtime"]["isa"] == "x86-64"


async def test_the_metrics_follow_readiness(state: ApplianceState, app: httpx2.AsyncClient) -> None:
    become_ready(state, FakeService())
    response = await app.get("/metrics")
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert "appliance_ready 1.0" in response.text
    state.drain()
    assert "appliance_ready 0.0" in (await app.get("/metrics")).text


async def test_a_model_may_have_slashes_in_its_name(
    state: ApplianceState, app: httpx2.AsyncClient
) -> None:
    identity = replace(make_identity(), model="org/tiny")
    become_ready(state, FakeService(), identity)
    assert (await app.get("/v1/models/org/tiny")).json()["id"] == "org/tiny"
    assert (await app.get("/v1/models/org%2Ftiny")).json()["id"] == "org/tiny"
    assert (await app.get("/v1/models/tiny")).status_code == 404
