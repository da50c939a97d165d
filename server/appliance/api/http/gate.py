"""Stands before every route: lets requests in, counts them, and records how they ended."""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING, Any, Protocol

from appliance.access.principal import Principal, anonymous
from appliance.api.http.credential import read_credential
from appliance.api.http.errors import CLIENT_CLOSED_REQUEST

if TYPE_CHECKING:
    from collections.abc import Mapping

    from appliance.access.policy import AccessControl, Admission
    from appliance.access.quota import Left
    from appliance.api.http.asgi import Message, Receive, Scope, Send
    from appliance.api.http.request import Headers
    from appliance.api.http.route import Route
    from appliance.completion import Account, Provenance


DIRECT_BODY = "appliance.direct_body"  # among a scope's extensions; serve/http1.py puts it there


class DirectBody(Protocol):
    """Writes a body without a task in between, as long as that does not have to wait."""

    @property
    def is_open(self) -> bool:
        """Whether a piece can be written now: the head is out, and the client reads."""

    def write(self, piece: bytes) -> None: ...


class Audit(Protocol):
    """Takes the entries of an audit log."""

    def add(self, facts: Mapping[str, object]) -> None: ...


class Visit:
    """One request that was let in."""

    __slots__ = ("admission", "identity", "principal")

    def __init__(self, principal: Principal, admission: Admission | None = None) -> None:
        self.principal = principal
        self.admission = admission
        self.identity: Provenance | None = None  # of the model that was asked

    @property
    def account(self) -> Account | None:
        return self.admission


class Gate:
    """Open without `access`: then everybody is anonymous."""

    def __init__(self, access: AccessControl | None = None, audit: Audit | None = None) -> None:
        self.access = access
        self.audit = audit

    async def enter(self, scope: Scope, headers: Headers, route: Route | None) -> Visit:
        """Raises Unauthorized or RateLimited. A path without a route is as closed as others."""
        access = self.access
        if access is None or (route is not None and route.is_public):
            visit = Visit(anonymous(headers.get("authorization").encode("latin-1")))
            scope["visit"] = visit
            return visit
        method = scope["method"]
        principal = await access.identify(read_credential(headers, method))
        visit = Visit(principal, access.admit(principal))
        scope["visit"] = visit
        if route is not None and asks_for_work(route) and visit.admission is not None:
            visit.admission.count()
        return visit

    def record(
        self, scope: Scope, receive: Receive, send: Send, route: Route | None
    ) -> Record | None:
        """What hashes the request and its answer, if they go into the audit log."""
        if self.audit is None or route is None or not asks_for_work(route):
            return None
        return Record(scope, receive, send, route)

    def leave(self, scope: Scope, record: Record | None) -> None:
        """The end of a request, however it ended. One that was not let in leaves no entry."""
        visit: Visit | None = scope.get("visit")
        if visit is None:
            return
        if record is not None and self.audit is not None:
            self.audit.add(record.facts(visit))
        if visit.admission is not None and self.access is not None:
            self.access.close(visit.admission)


def asks_for_work(route: Route) -> bool:
    """Whether a request counts against limits and is recorded: looking something up does not."""
    return route.method != "GET"


def limit_headers(visit: Visit) -> list[tuple[bytes, bytes]]:
    """The six headers of OpenAI's API, as far as there are limits."""
    if visit.admission is None:
        return []
    quota = visit.admission.quota
    headers: list[tuple[bytes, bytes]] = []
    for name, left in ((b"requests", quota.requests_left), (b"tokens", quota.tokens_left)):
        if left is not None:
            headers += _limit_headers(name, left)
    return headers


def _limit_headers(name: bytes, left: Left) -> list[tuple[bytes, bytes]]:
    return [
        (b"x-ratelimit-limit-" + name, b"%d" % left.limit),
        (b"x-ratelimit-remaining-" + name, b"%d" % left.remaining),
        (b"x-ratelimit-reset-" + name, duration(left.reset_s).encode()),
    ]


def duration(seconds: float) -> str:
    """As OpenAI writes it: 12ms, 7.66s, 6m0s."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    if seconds < 60:
        return f"{seconds:.2f}".rstrip("0").rstrip(".") + "s"
    whole = math.ceil(seconds)
    return f"{whole // 60}m{whole % 60}s"


class Record:
    """Hashes a request and its answer as they pass, for the audit log."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, route: Route) -> None:
        self._request_id: str = scope["request_id"]
        self._receive = receive
        self._send = send
        self._route = route
        self._request = hashlib.sha256()
        self._answer = hashlib.sha256()
        self._status = CLIENT_CLOSED_REQUEST  # until an answer begins
        extensions: dict[str, Any] = scope.get("extensions") or {}
        direct: DirectBody | None = extensions.get(DIRECT_BODY)
        if direct is not None:
            hashed = HashedBody(direct, self._answer)
            scope["extensions"] = {**extensions, DIRECT_BODY: hashed}

    async def receive(self) -> Message:
        message = await self._receive()
        self._request.update(message.get("body", b""))
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
        else:
            self._answer.update(message.get("body", b""))
        await self._send(message)

    def facts(self, visit: Visit) -> dict[str, object]:
        """The entry."""
        identity, principal = visit.identity, visit.principal
        return {
            "event": "answer",
            "who": principal.owner,
            "key": principal.key_id,
            "model": None if identity is None else identity.model,
            "fingerprint": None if identity is None else identity.fingerprint,
            "route": self._route.path,
            "status": self._status,
            "request_id": self._request_id,
            "request": self._request.hexdigest(),
            "answer": self._answer.hexdigest(),
        }


class HashedBody:
    """A direct body whose pieces are hashed, too."""

    __slots__ = ("_body", "_hash")

    def __init__(self, body: DirectBody, digest: hashlib._Hash) -> None:
        self._body = body
        self._hash = digest

    @property
    def is_open(self) -> bool:
        return self._body.is_open

    def write(self, piece: bytes) -> None:
        self._hash.update(piece)
        self._body.write(piece)
