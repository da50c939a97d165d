"""Knows the bearers of JSON Web Tokens by the keys of their issuer, from a local file."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import jwt

from appliance.access.grant import (
    GRANT_FIELDS,
    BadGrant,
    read_grant,
    read_text,
    refuse_unknown,
)
from appliance.access.json_config import read_object
from appliance.access.principal import Principal, salt_of
from appliance.access.recent import RecentTokens
from appliance.access.watched_file import WatchedFile
from appliance.errors import AccessError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

# By the kind of a key: the signatures it can have made. Only the issuer can make these; with a
# symmetric one, every server that can check a token could also sign one.
ALGORITHMS = {
    ("RSA", None): ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    ("EC", "P-256"): ("ES256",),
    ("EC", "P-384"): ("ES384",),
    ("EC", "P-521"): ("ES512",),
    ("OKP", "Ed25519"): ("EdDSA",),
}
KNOWN_ALGORITHMS = frozenset(name for names in ALGORITHMS.values() for name in names)
DEFAULT_ALGORITHMS = ["RS256", "ES256", "EdDSA"]
FIELDS = frozenset({"jwks", "issuer", "audience", "algorithms", "claims"}) | GRANT_FIELDS
CLAIM_FIELDS = frozenset({"name"}) | GRANT_FIELDS
LEEWAY_S = 30  # between the clocks of the issuer and of this machine
MAX_NAME_CHARS = 256
OPTIONS: jwt.types.Options = {
    "require": ["exp", "iss", "aud"],
    "enforce_minimum_key_length": True,
}

Keys = dict[tuple[str | None, str], jwt.PyJWK]  # by key id and algorithm


@dataclass(frozen=True, slots=True, kw_only=True)
class JwtRules:
    """Which tokens count, and what their bearers may do, as `--jwt FILE` says."""

    jwks: Path
    issuer: str
    audience: str
    algorithms: frozenset[str]
    claims: Mapping[str, str]  # our field to the claim that holds it; `name` is one of them
    defaults: Mapping[str, object]


class JwtBearers:
    """Reads rules and keys again when a file changes. A token that was judged is remembered."""

    def __init__(self, path: Path, now: Callable[[], float] = time.time) -> None:
        self._path = path
        self._recent = RecentTokens(now)
        self._now = now
        self._rules = read_rules(path)
        self._files = [WatchedFile(each, self._load) for each in (path, self._rules.jwks)]
        self._keys: Keys = {}
        self._load()

    async def authenticate(self, credential: str) -> Principal | None:
        if credential.count(".") != 2:
            return None
        known = self._recent.find(credential)
        if known is not None:
            return known[0]
        principal = self._judge(credential)
        if principal is not None and principal.expires_at is not None:
            self._recent.add(credential, principal, principal.expires_at)
        return principal

    def is_revoked(self, principal: Principal) -> bool:
        """A token is not revoked; it expires."""
        expires_at = principal.expires_at
        return principal.origin == "jwt" and expires_at is not None and expires_at <= self._now()

    def refresh(self) -> None:
        for file in self._files:
            file.refresh()

    def _load(self) -> None:
        rules = read_rules(self._path)
        self._keys = read_keys(rules)
        self._rules = rules
        self._recent.clear()

    def _judge(self, token: str) -> Principal | None:
        rules = self._rules
        try:
            key = self._key_for(jwt.get_unverified_header(token))
            if key is None:
                return None
            claims = jwt.decode(
                token,
                key,
                algorithms=[key.algorithm_name],
                issuer=rules.issuer,
                audience=rules.audience,
                leeway=LEEWAY_S,
                options=OPTIONS,
            )
            return _principal(rules, claims)
        except (jwt.PyJWTError, BadGrant, ValueError, TypeError):
            return None

    def _key_for(self, header: Mapping[str, object]) -> jwt.PyJWK | None:
        """The one key that may have signed it. Keys that the token brings along do not count."""
        algorithm, key_id = header.get("alg"), header.get("kid")
        if "crit" in header or not isinstance(algorithm, str):
            return None
        if isinstance(key_id, str):
            return self._keys.get((key_id, algorithm))
        found = [key for (_, name), key in self._keys.items() if name == algorithm]
        return found[0] if key_id is None and len(found) == 1 else None


def read_rules(path: Path) -> JwtRules:
    fields = read_object(path)
    try:
        refuse_unknown(fields, FIELDS)
        read_grant(fields)
        return JwtRules(
            jwks=path.parent / read_text("jwks", fields.get("jwks")),
            issuer=read_text("issuer", fields.get("issuer")),
            audience=read_text("audience", fields.get("audience")),
            algorithms=_read_algorithms(fields.get("algorithms", DEFAULT_ALGORITHMS)),
            claims=_read_claims(fields.get("claims", {})),
            defaults={name: fields[name] for name in GRANT_FIELDS & fields.keys()},
        )
    except BadGrant as error:
        raise AccessError(f"{path}: {error}.") from None


def read_keys(rules: JwtRules) -> Keys:
    """The issuer's keys that may sign."""
    entries = read_object(rules.jwks).get("keys")
    if not isinstance(entries, list) or not entries:
        raise AccessError(f'{rules.jwks} must hold a list of keys: {{"keys": [...]}}.')
    keys: Keys = {}
    for number, fields in enumerate(entries, start=1):
        try:
            for name in _algorithms_of(fields) & rules.algorithms:
                key_id = fields.get("kid")
                if (key_id, name) in keys:
                    raise BadGrant("another key has its `kid`")
                keys[key_id, name] = jwt.PyJWK(fields, name)
        except (jwt.PyJWTError, BadGrant, ValueError, TypeError, KeyError) as error:
            raise AccessError(f"{rules.jwks}: key {number}: {str(error)[:100]}.") from None
    if not keys:
        allowed = ", ".join(sorted(rules.algorithms))
        raise AccessError(f"{rules.jwks} holds no key that signs with {allowed}.")
    return keys


def _algorithms_of(fields: object) -> frozenset[str]:
    if not isinstance(fields, dict) or not isinstance(fields.get("kid"), str | None):
        raise BadGrant("it must be an object with a `kid` that is a text")
    kind = fields.get("kty")
    if kind == "oct":
        raise BadGrant("it is symmetric: all who can check tokens by it could also make them")
    if fields.get("use", "sig") != "sig":
        return frozenset()
    names = frozenset(ALGORITHMS.get((str(kind), fields.get("crv")), ()))
    return names & {fields["alg"]} if "alg" in fields else names


def _read_algorithms(value: object) -> frozenset[str]:
    if not isinstance(value, list) or not value or not KNOWN_ALGORITHMS.issuperset(value):
        known = ", ".join(sorted(KNOWN_ALGORITHMS))
        raise BadGrant(f"`algorithms` must be a list of some of {known}")
    return frozenset(value)


def _read_claims(value: object) -> Mapping[str, str]:
    if not isinstance(value, dict):
        raise BadGrant("`claims` must be an object")
    refuse_unknown(value, CLAIM_FIELDS)
    return {"name": "sub", **{field: read_text(field, claim) for field, claim in value.items()}}


def _principal(rules: JwtRules, claims: Mapping[str, object]) -> Principal | None:
    name = claims.get(rules.claims["name"])
    if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME_CHARS or not name.isprintable():
        return None
    named = {
        field: claims[claim]
        for field, claim in rules.claims.items()
        if field != "name" and claim in claims
    }
    grant = read_grant({**rules.defaults, **named})
    return Principal(
        name=name,
        origin="jwt",
        cache_salt=salt_of("jwt", name),
        models=grant.models,
        limits=grant.limits,
        priority=grant.priority,
        expires_at=float(cast("int", claims["exp"])),
    )
