"""The gate costs a request little, with a hundred keys, and a stranger's even less."""

from __future__ import annotations

import asyncio
import time

import pytest

from appliance.access.authenticator import KeyRing
from appliance.access.grant import read_grant
from appliance.access.key_file import KeyFile
from appliance.access.policy import AccessControl
from appliance.access.secret import new_secret
from appliance.api.http.gate import Gate, limit_headers
from appliance.api.http.request import Headers
from appliance.errors import Unauthorized
from appliance.serve.app import FACES

MOST_S = 20e-6
[CHAT] = [r for face in FACES for r in face.routes if r.path == "/v1/chat/completions"]


@pytest.fixture(scope="module")
def gate_and_keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Gate, list[str]]:
    file = KeyFile(tmp_path_factory.mktemp("keys") / "keys.json")
    grant = read_grant({"requests_per_minute": 10**6, "tokens_per_minute": 10**9, "concurrent": 99})
    secrets = [file.add(f"n{number}", expires=None, grant=grant)[0] for number in range(100)]
    return Gate(AccessControl([KeyRing(file.path)])), secrets


async def pass_through(gate: Gate, secret: str) -> None:
    """All that access control does for one request: who, how much, the headers, the account."""
    raw = [
        (b"host", b"127.0.0.1:8000"),
        (b"user-agent", b"client"),
        (b"authorization", f"Bearer {secret}".encode()),
        (b"content-type", b"application/json"),
    ]
    scope = {"method": "POST", "path": CHAT.path, "headers": raw}
    visit = await gate.enter(scope, Headers(raw), CHAT)
    assert visit.account is not None
    reservation = visit.account.reserve(500)
    limit_headers(visit)
    reservation.settle(80)
    gate.leave(scope, None)


async def turn_away(gate: Gate, secret: str) -> None:
    with pytest.raises(Unauthorized):
        await pass_through(gate, secret)


async def cost_s(gate: Gate, secrets: list[str], *, are_strangers: bool = False) -> float:
    """The mean of the best of twenty rounds."""
    once = turn_away if are_strangers else pass_through
    rounds = []
    for _ in range(20):
        started_at = time.perf_counter()
        for secret in secrets:
            await once(gate, secret)
        rounds.append((time.perf_counter() - started_at) / len(secrets))
    return min(rounds)


def test_a_hundred_keys_cost_a_request_under_20_microseconds(
    gate_and_keys: tuple[Gate, list[str]],
) -> None:
    gate, secrets = gate_and_keys
    assert asyncio.run(cost_s(gate, secrets)) < MOST_S


@pytest.mark.parametrize("kind", ["never made", "not a key", "very long"])
def test_a_strangers_request_costs_no_more(
    gate_and_keys: tuple[Gate, list[str]], kind: str
) -> None:
    made = {"never made": new_secret(), "not a key": "x", "very long": "x" * 60_000}
    cost = asyncio.run(cost_s(gate_and_keys[0], [made[kind]] * 100, are_strangers=True))
    assert cost < 2 * MOST_S  # half of it is the test's own
