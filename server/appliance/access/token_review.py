"""Knows the callers of a Kubernetes cluster, by asking its API whose token was sent."""

from __future__ import annotations

import asyncio
import base64
import http.client
import json
import logging
import ssl
import time
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from appliance.access.grant import (
    GRANT_FIELDS,
    BadGrant,
    Grant,
    read_grant,
    read_text,
    refuse_unknown,
)
from appliance.access.json_config import read_object
from appliance.access.principal import Principal, salt_of
from appliance.access.recent import RecentTokens
from appliance.access.watched_file import WatchedFile
from appliance.errors import AccessError, Overloaded

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

logger = logging.getLogger(__name__)

PATH = "/apis/authentication.k8s.io/v1/tokenreviews"
FIELDS = frozenset({"audience", "api_server", "credentials", "callers"})
REMEMBERED_S = 60.0  # a token that was deleted in the cluster works for so long still
REFUSED_S = 10.0
TIMEOUT_S = 5.0
MAX_ASKING = 4  # reviews at the same time
MAX_WAITING = 64
MAX_ANSWER_BYTES = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewRules:
    """Whom to ask, and what each caller may do, as `--token-review FILE` says."""

    audience: str
    api_server: str
    credentials: Path  # a directory with the pod's own `token` and the cluster's `ca.crt`
    callers: tuple[tuple[str, Grant], ...]  # patterns of names; the first that fits decides

    def grant_of(self, name: str) -> Grant | None:
        return next((grant for pattern, grant in self.callers if fnmatchcase(name, pattern)), None)


class ClusterTokens:
    """Asks the API server, and remembers what it said for a minute."""

    def __init__(self, path: Path, now: Callable[[], float] = time.time) -> None:
        self._path = path
        self._now = now
        self._recent = RecentTokens(now)
        self._rules = read_rules(path)
        self._file = WatchedFile(path, self._load)
        self._asking = asyncio.Semaphore(MAX_ASKING)
        self._num_waiting = 0

    async def authenticate(self, credential: str) -> Principal | None:
        rules = self._rules
        if not _may_be_meant(credential, rules.audience, self._now()):
            return None
        known = self._recent.find(credential)
        return known[0] if known is not None else await self._ask(credential, rules)

    def is_revoked(self, principal: Principal) -> bool:
        """A cluster does not tell that a token was deleted; it is asked again after a minute."""
        expires_at = principal.expires_at
        is_ours = principal.origin == "kubernetes"
        return is_ours and expires_at is not None and expires_at <= self._now()

    def refresh(self) -> None:
        self._file.refresh()

    def _load(self) -> None:
        self._rules = read_rules(self._path)
        self._recent.clear()

    async def _ask(self, token: str, rules: ReviewRules) -> Principal | None:
        if self._num_waiting >= MAX_WAITING:
            raise Overloaded("Too many tokens wait for the cluster's judgement. Try again.")
        self._num_waiting += 1
        try:
            async with self._asking:
                known = self._recent.find(token)  # of another request with the same token
                if known is not None:
                    return known[0]
                status = await asyncio.to_thread(review, token, rules)
        except (OSError, http.client.HTTPException, ValueError) as error:
            logger.warning("token review failed", extra={"why": type(error).__name__})
            raise Overloaded("The cluster cannot say whose token this is. Try again.") from None
        finally:
            self._num_waiting -= 1
        principal = _principal(status, rules, token)
        remembered_s = REFUSED_S if principal is None else REMEMBERED_S
        self._recent.add(token, principal, self._now() + remembered_s)
        return principal


def review(token: str, rules: ReviewRules) -> Mapping[str, object]:
    """The `status` of a TokenReview; blocks."""
    spec = {"token": token, "audiences": [rules.audience]}
    kind = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview"}
    own = (rules.credentials / "token").read_text(encoding="ascii").strip()  # it is renewed hourly
    context = ssl.create_default_context(cafile=str(rules.credentials / "ca.crt"))
    server = urlsplit(rules.api_server)
    connection = http.client.HTTPSConnection(
        server.hostname or "", server.port, timeout=TIMEOUT_S, context=context
    )
    try:
        headers = {"Authorization": f"Bearer {own}", "Content-Type": "application/json"}
        connection.request("POST", PATH, json.dumps({**kind, "spec": spec}), headers)
        response = connection.getresponse()
        answer = json.loads(response.read(MAX_ANSWER_BYTES))
        if response.status not in (200, 201):
            raise ValueError(f"status {response.status}")
    finally:
        connection.close()
    status = answer.get("status") if isinstance(answer, dict) else None
    return status if isinstance(status, dict) else {}


def read_rules(path: Path) -> ReviewRules:
    fields = read_object(path)
    try:
        refuse_unknown(fields, FIELDS)
        api_server = read_text(
            "api_server", fields.get("api_server", "https://kubernetes.default.svc")
        )
        if urlsplit(api_server).scheme != "https":
            raise BadGrant("`api_server` must begin with https://")
        credentials = fields.get("credentials", "/var/run/secrets/kubernetes.io/serviceaccount")
        return ReviewRules(
            audience=read_text("audience", fields.get("audience")),
            api_server=api_server,
            credentials=path.parent / read_text("credentials", credentials),
            callers=_read_callers(fields.get("callers")),
        )
    except BadGrant as error:
        raise AccessError(f"{path}: {error}.") from None


def _read_callers(value: object) -> tuple[tuple[str, Grant], ...]:
    if not isinstance(value, list) or not value:
        raise BadGrant("`callers` must be a list; without one, no caller is let in")
    callers = []
    for fields in value:
        if not isinstance(fields, dict):
            raise BadGrant("`callers` must be a list of objects")
        refuse_unknown(fields, GRANT_FIELDS | {"name"})
        callers.append((read_text("name", fields.get("name")), read_grant(fields)))
    return tuple(callers)


def _may_be_meant(token: str, audience: str, now: float) -> bool:
    """Whether it is worth a call: a token for this server, not expired, by what it says itself."""
    parts = token.split(".")
    if len(parts) != 3:
        return False
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, RecursionError):
        return False
    if not isinstance(claims, dict):
        return False
    meant, expires_at = claims.get("aud"), claims.get("exp")
    names = meant if isinstance(meant, list) else [meant]
    return audience in names and isinstance(expires_at, int | float) and expires_at > now


def _principal(status: Mapping[str, object], rules: ReviewRules, token: str) -> Principal | None:
    audiences, user = status.get("audiences"), status.get("user")
    if status.get("authenticated") is not True or not isinstance(user, dict):
        return None
    # An API server that knows no audiences leaves them out, and would accept any token.
    if not isinstance(audiences, list) or rules.audience not in audiences:
        return None
    name = user.get("username")
    grant = rules.grant_of(name) if isinstance(name, str) else None
    if grant is None:
        return None
    payload = token.split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return Principal(
        name=str(name),
        origin="kubernetes",
        cache_salt=salt_of("kubernetes", str(name)),
        models=grant.models,
        limits=grant.limits,
        priority=grant.priority,
        expires_at=float(claims["exp"]),
    )
