"""Limits hold over any minute, what was not used comes back, and a refusal says when to return."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.access.principal import Limits, Principal, salt_of
from appliance.access.quota import Quota, Quotas
from appliance.errors import QuotaExceeded, RateLimited


class Clock:
    """A time that a test decides."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def requests_admitted(quota: Quota, attempts: int) -> int:
    admitted = 0
    for _ in range(attempts):
        try:
            quota.admit()
        except RateLimited:
            continue
        quota.release()
        admitted += 1
    return admitted


def test_a_minutes_requests_pass_at_once_and_then_one_as_each_comes_back(clock: Clock) -> None:
    quota = Quota(Limits(requests_per_minute=6), clock)
    assert requests_admitted(quota, 20) == 6
    clock.now += 9.9
    assert requests_admitted(quota, 20) == 0
    clock.now += 0.2
    assert requests_admitted(quota, 20) == 1


def test_a_refusal_says_when_the_next_request_passes(clock: Clock) -> None:
    quota = Quota(Limits(requests_per_minute=6), clock)
    requests_admitted(quota, 6)
    with pytest.raises(RateLimited, match=r"6 requests a minute.* in 10 s") as refused:
        quota.admit()
    assert (refused.value.retry_after_s, refused.value.type) == (10, "requests")
    clock.now += refused.value.retry_after_s
    quota.admit()


def test_no_more_answers_at_a_time_than_allowed(clock: Clock) -> None:
    quota = Quota(Limits(concurrent=2), clock)
    quota.admit()
    quota.admit()
    with pytest.raises(RateLimited, match="its limit is 2"):
        quota.admit()
    quota.release()
    quota.admit()


def test_a_refused_request_is_not_counted(clock: Clock) -> None:
    quota = Quota(Limits(requests_per_minute=5, concurrent=1), clock)
    quota.admit()
    for _ in range(10):
        with pytest.raises(RateLimited):
            quota.admit()
    assert quota.requests_left is not None
    assert quota.requests_left.remaining == 4


def test_tokens_are_reserved_and_the_unused_ones_come_back(clock: Clock) -> None:
    quota = Quota(Limits(tokens_per_minute=100), clock)
    quota.reserve(80)
    with pytest.raises(RateLimited, match="20 are left and the request may take 30") as refused:
        quota.reserve(30)
    assert refused.value.type == "tokens"
    quota.settle(80, 10)
    quota.reserve(90)
    assert quota.tokens_left is not None
    assert quota.tokens_left.remaining == 0


def test_more_than_was_reserved_is_paid_by_those_that_follow(clock: Clock) -> None:
    quota = Quota(Limits(tokens_per_minute=60), clock)
    quota.reserve(50)
    quota.settle(50, 90)
    assert quota.tokens_left is not None
    assert (quota.tokens_left.remaining, quota.tokens_left.reset_s) == (0, 90)
    with pytest.raises(RateLimited, match="in 40 s"):
        quota.reserve(10)


def test_what_never_fits_is_refused_for_good(clock: Clock) -> None:
    with pytest.raises(QuotaExceeded, match=r"may take 101 tokens.*limit of this key is 100"):
        Quota(Limits(tokens_per_minute=100), clock).reserve(101)


def test_without_limits_everything_passes(clock: Clock) -> None:
    quota = Quota(Limits(), clock)
    assert requests_admitted(quota, 1000) == 1000
    quota.reserve(10**9)
    assert (quota.requests_left, quota.tokens_left) == (None, None)


def test_the_reset_is_the_time_until_all_is_back(clock: Clock) -> None:
    quota = Quota(Limits(tokens_per_minute=60), clock)
    quota.reserve(30)
    left = quota.tokens_left
    assert left is not None
    assert (left.limit, left.remaining, left.reset_s) == (60, 30, 30.0)


def test_changed_limits_do_not_forget_what_was_used(clock: Clock) -> None:
    quota = Quota(Limits(tokens_per_minute=100), clock)
    quota.reserve(80)
    quota.adopt(Limits(tokens_per_minute=200))
    assert quota.tokens_left is not None
    assert quota.tokens_left.remaining == 120
    quota.adopt(Limits())
    assert quota.tokens_left is None


def principal(name: str, limits: Limits) -> Principal:
    return Principal(name=name, origin="jwt", cache_salt=salt_of("jwt", name), limits=limits)


def test_each_caller_has_its_own_quota_and_keeps_it(clock: Clock) -> None:
    quotas = Quotas(clock)
    ada, eve = (principal(name, Limits(requests_per_minute=2)) for name in ("ada", "eve"))
    quotas.of(ada).admit()
    assert requests_admitted(quotas.of(ada), 5) == 1
    assert requests_admitted(quotas.of(eve), 5) == 2


def test_idle_callers_are_forgotten_and_busy_ones_kept(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("appliance.access.quota.MAX_IDLE_QUOTAS", 3)
    quotas = Quotas(clock)
    busy = principal("busy", Limits(requests_per_minute=2))
    quotas.of(busy).admit()
    for number in range(20):
        quotas.of(principal(f"passer-by {number}", Limits()))
    assert len(quotas._by_owner) <= 4
    assert quotas.of(busy).num_open == 1


@given(
    limit=st.integers(1, 50),
    steps=st.lists(st.tuples(st.floats(0, 30), st.integers(1, 60), st.floats(0, 1)), max_size=40),
)
def test_no_schedule_uses_more_than_a_burst_and_the_rate(
    limit: int, steps: list[tuple[float, int, float]]
) -> None:
    """Over T seconds at most limit * (1 + T / 60) tokens, for any mix of sizes and settlements."""
    clock = Clock()
    quota = Quota(Limits(tokens_per_minute=limit), clock)
    used = 0
    for pause, wanted, share in steps:
        clock.now += pause
        try:
            quota.reserve(wanted)
        except (RateLimited, QuotaExceeded):
            continue
        spent = int(wanted * share)
        quota.settle(wanted, spent)
        used += spent
        assert used <= limit * (1 + (clock.now - 1000.0) / 60) + 1e-6
