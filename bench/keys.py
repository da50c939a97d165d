"""What access control costs a request, with many keys and for strangers."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from appliance.access.authenticator import KeyRing
from appliance.access.grant import read_grant
from appliance.access.key_file import KeyFile
from appliance.access.policy import AccessControl
from appliance.access.secret import new_secret
from appliance.api.http.gate import Gate, limit_headers
from appliance.api.http.request import Headers
from appliance.errors import Unauthorized
from appliance.serve.app import FACES

NUM_ROUNDS = 20
NUM_REQUESTS = 500  # a round
[CHAT] = [r for face in FACES for r in face.routes if r.path == "/v1/chat/completions"]
GRANT = read_grant({"requests_per_minute": 10**9, "tokens_per_minute": 10**9, "concurrent": 99})


def main(_: Sequence[str] = ()) -> int:
    """Print microseconds a request: the best of twenty rounds, whose work is all the same."""
    for num_keys in (1, 100, 1000):
        print(f"{num_keys:5} keys  {cost_us(num_keys, pass_through):6.1f} µs a request")
    print(f"  strangers  {cost_us(100, turn_away):6.1f} µs a request")
    return 0


def cost_us(num_keys: int, ask: Callable[[Gate, str], Awaitable[None]]) -> float:
    with TemporaryDirectory() as directory:
        file = KeyFile(Path(directory) / "keys.json")
        secrets = [
            file.add(f"n{number}", expires=None, grant=GRANT)[0] for number in range(num_keys)
        ]
        gate = Gate(AccessControl([KeyRing(file.path)]))
        asked = [secrets[number % num_keys] for number in range(NUM_REQUESTS)]
        return asyncio.run(best_round(gate, asked, ask)) * 1e6


async def best_round(
    gate: Gate, secrets: Sequence[str], ask: Callable[[Gate, str], Awaitable[None]]
) -> float:
    rounds = []
    for _ in range(NUM_ROUNDS):
        started_at = time.perf_counter()
        for secret in secrets:
            await ask(gate, secret)
        rounds.append((time.perf_counter() - started_at) / len(secrets))
    return min(rounds)


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
    if visit.account is not None:
        reservation = visit.account.reserve(500)
        limit_headers(visit)
        reservation.settle(80)
    gate.leave(scope, None)


async def turn_away(gate: Gate, _: str) -> None:
    with contextlib.suppress(Unauthorized):
        await pass_through(gate, STRANGER)


STRANGER = new_secret()
