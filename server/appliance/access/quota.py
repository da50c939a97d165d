"""Counts what each caller asks for: requests and tokens a minute, and answers at the same time.

Each limit a minute is a bucket: full at first, it holds a minute's worth and fills up evenly.
Tokens are reserved before an answer is computed, as if it were as long as it may be; at its end
what was not used goes back.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from appliance.errors import QuotaExceeded, RateLimited

if TYPE_CHECKING:
    from appliance.access.principal import Limits, Principal

Clock = Callable[[], float]

MINUTE_S = 60.0
MAX_IDLE_QUOTAS = 10_000  # of callers that are not in a file of keys, such as bearers of tokens


class Bucket:
    """Holds up to `capacity`; what is taken comes back evenly within a minute."""

    __slots__ = ("_clock", "_level", "_looked_at_s", "capacity")

    def __init__(self, capacity: int, clock: Clock) -> None:
        self.capacity = capacity
        self._clock = clock
        self._level = float(capacity)
        self._looked_at_s = clock()

    @property
    def level(self) -> float:
        now = self._clock()
        grown = self._level + (now - self._looked_at_s) * self.capacity / MINUTE_S
        self._level = min(float(self.capacity), grown)
        self._looked_at_s = now
        return self._level

    def take(self, amount: float) -> None:
        """Below zero, too: a negative amount gives back."""
        self._level = min(float(self.capacity), self.level - amount)

    def wait_s(self, amount: float) -> float:
        """Until there is so much."""
        return max(0.0, (amount - self.level) * MINUTE_S / self.capacity)

    def resize(self, capacity: int) -> None:
        """Keeps what has been taken."""
        taken = self.capacity - self.level
        self.capacity = capacity
        self._level = capacity - min(taken, float(capacity))


@dataclass(frozen=True, slots=True)
class Left:
    """What is left of a limit a minute, and the seconds until all of it is."""

    limit: int
    remaining: int
    reset_s: float


class Quota:
    """What one caller has used. Belongs to the event loop."""

    def __init__(self, limits: Limits, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self.limits = limits
        self.num_open = 0
        self._requests = _bucket(limits.requests_per_minute, clock)
        self._tokens = _bucket(limits.tokens_per_minute, clock)

    def adopt(self, limits: Limits) -> None:
        """Holds to limits that changed, without forgetting what was used."""
        if limits == self.limits:
            return
        self.limits = limits
        self._requests = _resized(self._requests, limits.requests_per_minute, self._clock)
        self._tokens = _resized(self._tokens, limits.tokens_per_minute, self._clock)

    def admit(self) -> None:
        """Counts one request; a RateLimited says when to come back."""
        most = self.limits.concurrent
        if most is not None and self.num_open >= most:
            raise RateLimited(
                f"{self.num_open} answers to this key are being computed and its limit is {most}. "
                "Send the request again when one of them has ended.",
                retry_after_s=1,
                kind="requests",
            )
        bucket = self._requests
        if bucket is not None:
            if bucket.level < 1:
                wait_s = _whole_seconds(bucket.wait_s(1))
                raise RateLimited(
                    f"The limit of this key is {bucket.capacity} requests a minute. "
                    f"Send the request again in {wait_s} s.",
                    retry_after_s=wait_s,
                    kind="requests",
                )
            bucket.take(1)
        self.num_open += 1

    def release(self) -> None:
        """The end of a request that `admit` counted."""
        self.num_open -= 1

    def reserve(self, num_tokens: int) -> None:
        """Takes as many tokens as an answer and its prompt may have at most."""
        bucket = self._tokens
        if bucket is None:
            return
        if num_tokens > bucket.capacity:
            raise QuotaExceeded(
                f"The request may take {num_tokens} tokens, prompt and answers together; the limit "
                f"of this key is {bucket.capacity} a minute, so it can never be answered. "
                "Ask for fewer tokens or send a shorter prompt."
            )
        if bucket.level < num_tokens:
            wait_s = _whole_seconds(bucket.wait_s(num_tokens))
            raise RateLimited(
                f"The limit of this key is {bucket.capacity} tokens a minute; "
                f"{max(0, int(bucket.level))} are left and the request may take {num_tokens}. "
                f"Send it again in {wait_s} s.",
                retry_after_s=wait_s,
                kind="tokens",
            )
        bucket.take(num_tokens)

    def settle(self, num_reserved: int, num_used: int) -> None:
        if self._tokens is not None:
            self._tokens.take(num_used - num_reserved)

    @property
    def requests_left(self) -> Left | None:
        return _left(self._requests)

    @property
    def tokens_left(self) -> Left | None:
        return _left(self._tokens)

    @property
    def is_idle(self) -> bool:
        """Whether forgetting it changes nothing."""
        buckets = (self._requests, self._tokens)
        return not self.num_open and all(each is None or _is_full(each) for each in buckets)


class Quotas:
    """The quota of each caller, kept across changes of the file of keys."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._by_owner: dict[str, Quota] = {}

    def of(self, principal: Principal) -> Quota:
        quota = self._by_owner.get(principal.owner)
        if quota is None:
            if len(self._by_owner) >= MAX_IDLE_QUOTAS:
                self._forget_idle()
            quota = self._by_owner[principal.owner] = Quota(principal.limits, self._clock)
        else:
            quota.adopt(principal.limits)
        return quota

    def _forget_idle(self) -> None:
        self._by_owner = {
            owner: quota for owner, quota in self._by_owner.items() if not quota.is_idle
        }


def _bucket(capacity: int | None, clock: Clock) -> Bucket | None:
    return None if capacity is None else Bucket(capacity, clock)


def _resized(bucket: Bucket | None, capacity: int | None, clock: Clock) -> Bucket | None:
    if bucket is None or capacity is None:
        return _bucket(capacity, clock)
    bucket.resize(capacity)
    return bucket


def _is_full(bucket: Bucket) -> bool:
    return bucket.level >= bucket.capacity


def _left(bucket: Bucket | None) -> Left | None:
    if bucket is None:
        return None
    return Left(bucket.capacity, max(0, int(bucket.level)), bucket.wait_s(bucket.capacity))


def _whole_seconds(seconds: float) -> int:
    return max(1, math.ceil(seconds))
