"""An answer reserves what it may take before it is computed, and pays for what it took."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from appliance.completion import CompletionRequest, Delta
from appliance.errors import ApplianceError, Overloaded, QuotaExceeded, RequestError, Unauthorized
from tests.unit.completion.test_service import Bench


class FakeAccount:
    """Remembers what was reserved and what was used."""

    def __init__(self, refusal: RequestError | None = None) -> None:
        self.refusal = refusal
        self.reserved: list[int] = []
        self.used: list[int] = []
        self.end: Callable[[ApplianceError], None] | None = None

    def reserve(self, num_tokens: int) -> FakeAccount:
        if self.refusal is not None:
            raise self.refusal
        self.reserved.append(num_tokens)
        return self

    def on_end(self, end: Callable[[ApplianceError], None]) -> None:
        self.end = end

    def settle(self, num_tokens: int) -> None:
        self.used.append(num_tokens)


def request(account: FakeAccount, **fields: object) -> CompletionRequest:
    values: dict[str, object] = {"request_id": "r", "prompt": "Once", "max_new_tokens": 20}
    return CompletionRequest(**(values | fields), account=account)  # type: ignore[arg-type]


def test_prompt_and_longest_answers_are_reserved_and_the_real_ones_paid() -> None:
    account, bench = FakeAccount(), Bench(" upon a time")
    completion = asyncio.run(bench.finish(bench.service.complete(request(account, n=2))))
    assert account.reserved == [completion.usage.prompt_tokens + 2 * 20]
    assert account.used == [completion.usage.total_tokens]


def test_without_a_limit_a_part_is_reserved_and_the_rest_paid_at_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("appliance.completion.service.RESERVED_UNASKED", 3)
    account, bench = FakeAccount(), Bench(" upon a time there was a little fox")
    work = bench.service.complete(request(account, max_new_tokens=None))
    completion = asyncio.run(bench.finish(work))
    assert account.reserved == [completion.usage.prompt_tokens + 3]
    assert account.used == [completion.usage.total_tokens]
    assert account.used > account.reserved


def test_a_refused_reservation_computes_nothing() -> None:
    account, bench = FakeAccount(QuotaExceeded("too much")), Bench("x")
    with pytest.raises(QuotaExceeded):
        asyncio.run(bench.service.start(request(account)))
    assert bench.engine.num_waiting == 0


def test_what_the_engine_refuses_costs_nothing() -> None:
    account, bench = FakeAccount(), Bench("x", max_queued=0)
    with pytest.raises(Overloaded):
        asyncio.run(bench.service.start(request(account, n=8)))
    assert account.used == [0]


def test_a_client_that_leaves_pays_for_what_was_computed() -> None:
    account, bench = FakeAccount(), Bench(" upon a time there was a fox")

    async def leave_early() -> int:
        stream = await bench.service.start(request(account))
        deltas: list[Delta] = []
        done = stream.follow(deltas.append)
        while len(deltas) < 2:
            bench.engine.step()
            await asyncio.sleep(0)
        stream.close()
        assert done.cancelled()
        return stream.usage.total_tokens

    num_tokens = asyncio.run(leave_early())
    assert account.used == [num_tokens]
    assert num_tokens < account.reserved[0]


def test_an_asker_that_loses_its_access_gets_an_error_in_place_of_the_rest() -> None:
    account, bench = FakeAccount(), Bench(" upon a time there was a fox")

    async def revoked() -> None:
        stream = await bench.service.start(request(account))
        done = stream.follow(lambda _: None)
        bench.engine.step()
        await asyncio.sleep(0)
        assert account.end is not None
        account.end(Unauthorized("revoked"))
        account.end(Unauthorized("revoked"))  # once is enough
        try:
            await done
        finally:
            stream.close()

    with pytest.raises(Unauthorized):
        asyncio.run(revoked())
    assert len(account.used) == 1


def test_texts_to_embed_are_paid_as_they_are() -> None:
    account, bench = FakeAccount(), Bench()
    embed = bench.service.embed(("a fox", "a bear"), account=account)
    embeddings = asyncio.run(bench.finish(embed))
    assert account.reserved == account.used == [embeddings.num_tokens]
