"""Lets requests in: finds out who asks, counts it, and ends what a caller may no longer do."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from appliance.access.quota import Quota, Quotas
from appliance.errors import ApplianceError, Unauthorized

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from appliance.access.authenticator import Authenticator
    from appliance.access.principal import Principal

MAX_CREDENTIAL_CHARS = 16_384


class Reservation:
    """Tokens that one answer may take. `settle` gives back what it did not, once."""

    __slots__ = ("_admission", "_end", "_num_reserved")

    def __init__(self, admission: Admission, num_reserved: int) -> None:
        self._admission: Admission | None = admission
        self._num_reserved = num_reserved
        self._end: Callable[[ApplianceError], None] | None = None

    def on_end(self, end: Callable[[ApplianceError], None]) -> None:
        """`end` is called if the caller loses its access before the answer is complete."""
        self._end = end

    def settle(self, num_tokens: int) -> None:
        admission, self._admission, self._end = self._admission, None, None
        if admission is not None:
            admission.quota.settle(self._num_reserved, num_tokens)
            admission.reservations.discard(self)

    def end(self, error: ApplianceError) -> None:
        if self._end is not None:
            self._end(error)


@dataclass(slots=True, eq=False)
class Admission:
    """One request that was let in, until `close`; the account of the answers that it asks for."""

    principal: Principal
    quota: Quota
    reservations: set[Reservation] = field(default_factory=set)
    is_counted: bool = False

    def count(self) -> None:
        """Counts it against the limits of requests; a RateLimited refuses it."""
        self.quota.admit()
        self.is_counted = True

    def reserve(self, num_tokens: int) -> Reservation:
        self.quota.reserve(num_tokens)
        reservation = Reservation(self, num_tokens)
        self.reservations.add(reservation)
        return reservation


class AccessControl:
    """All ways to be let in, and the requests that are. Belongs to the event loop."""

    def __init__(
        self, authenticators: Sequence[Authenticator], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._authenticators = authenticators
        self._quotas = Quotas(clock)
        self._open: set[Admission] = set()

    async def identify(self, credential: str) -> Principal:
        """The owner of a credential; an Unauthorized says only that there is none."""
        if len(credential) <= MAX_CREDENTIAL_CHARS:
            for authenticator in self._authenticators:
                principal = await authenticator.authenticate(credential)
                if principal is not None:
                    return principal
        raise Unauthorized(
            "The key is not valid: it is wrong, expired or revoked. Check it, or ask the operator "
            "of this server for another."
        )

    def quota_of(self, principal: Principal) -> Quota:
        return self._quotas.of(principal)

    def admit(self, principal: Principal) -> Admission:
        admission = Admission(principal, self._quotas.of(principal))
        self._open.add(admission)
        return admission

    def close(self, admission: Admission) -> None:
        """The end of a request, however it ended."""
        self._open.discard(admission)
        for reservation in list(admission.reservations):
            reservation.settle(0)
        if admission.is_counted:
            admission.is_counted = False
            admission.quota.release()

    def refresh(self) -> None:
        """Reads the files that changed. Blocks, so it belongs in a thread."""
        for authenticator in self._authenticators:
            authenticator.refresh()

    def end_revoked(self) -> None:
        """Ends the answers to callers that were let in and would not be any more."""
        for admission in list(self._open):
            if any(each.is_revoked(admission.principal) for each in self._authenticators):
                error = Unauthorized("The key was revoked or has expired while this was answered.")
                for reservation in list(admission.reservations):
                    reservation.end(error)
