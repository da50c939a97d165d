"""Only tokens that the issuer signed for this server let anyone in."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from appliance.access.jwt_tokens import JwtBearers
from appliance.access.principal import Principal
from appliance.errors import AccessError

RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
ED_KEY = ed25519.Ed25519PrivateKey.generate()
ISSUER, AUDIENCE = "https://login.example", "llama-appliance"
RULES: dict[str, Any] = {"jwks": "jwks.json", "issuer": ISSUER, "audience": AUDIENCE}
KEYS: list[dict[str, Any]] = [
    {**RSAAlgorithm.to_jwk(RSA_KEY.public_key(), as_dict=True), "kid": "r", "use": "sig"},
    {**ECAlgorithm.to_jwk(EC_KEY.public_key(), as_dict=True), "kid": "e"},
    {**OKPAlgorithm.to_jwk(ED_KEY.public_key(), as_dict=True), "kid": "d"},
]


def bearers(
    path: Path, rules: dict[str, Any] | None = None, keys: list[Any] | None = None
) -> JwtBearers:
    (path / "jwks.json").write_text(json.dumps({"keys": KEYS if keys is None else keys}))
    (path / "jwt.json").write_text(json.dumps(RULES | (rules or {})))
    return JwtBearers(path / "jwt.json")


def claims(**changes: object) -> dict[str, object]:
    whole = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ada", "exp": int(time.time()) + 600}
    return {name: value for name, value in (whole | changes).items() if value is not None}


def sign(
    key: Any = RSA_KEY, algorithm: str = "RS256", kid: str | None = "r", **changes: object
) -> str:
    headers = {} if kid is None else {"kid": kid}
    return jwt.encode(claims(**changes), key, algorithm, headers=headers)


def who(known: JwtBearers, token: str) -> Principal | None:
    return asyncio.run(known.authenticate(token))


@pytest.mark.parametrize(
    ("key", "algorithm", "kid"),
    [
        (RSA_KEY, "RS256", "r"),
        (EC_KEY, "ES256", "e"),
        (ED_KEY, "EdDSA", "d"),
        (EC_KEY, "ES256", None),
    ],
)
def test_a_token_of_the_issuer_names_its_bearer(
    key: Any, algorithm: str, kid: str | None, tmp_path: Path
) -> None:
    principal = who(bearers(tmp_path), sign(key, algorithm, kid))
    assert principal is not None
    assert (principal.owner, principal.models) == ("jwt:ada", None)


def unsigned() -> str:
    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    return f"{part({'alg': 'none', 'kid': 'r'})}.{part(claims())}."


def signed_with_the_public_key() -> str:
    """The confusion of an RSA key with a shared secret."""
    pem = RSA_KEY.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    header = base64.urlsafe_b64encode(b'{"alg":"HS256","kid":"r"}').rstrip(b"=")
    body = base64.urlsafe_b64encode(json.dumps(claims()).encode()).rstrip(b"=")
    mac = hmac.new(pem, header + b"." + body, hashlib.sha256).digest()
    return b".".join([header, body, base64.urlsafe_b64encode(mac).rstrip(b"=")]).decode()


def with_a_key_of_its_own() -> str:
    jwk = RSAAlgorithm.to_jwk(OTHER_KEY.public_key(), as_dict=True)
    return jwt.encode(claims(), OTHER_KEY, "RS256", headers={"jwk": jwk, "kid": "r"})


def altered() -> str:
    head, _, signature = sign().split(".")
    other = base64.urlsafe_b64encode(json.dumps(claims(sub="eve")).encode()).rstrip(b"=").decode()
    return f"{head}.{other}.{signature}"


REFUSED: dict[str, Callable[[], str]] = {
    "another audience": partial(sign, aud="other"),
    "no audience": partial(sign, aud=None),
    "another issuer": partial(sign, iss="https://evil.example"),
    "no issuer": partial(sign, iss=None),
    "expired": partial(sign, exp=int(time.time()) - 60),
    "without an end": partial(sign, exp=None),
    "not valid yet": partial(sign, nbf=int(time.time()) + 600),
    "without a name": partial(sign, sub=None),
    "an empty name": partial(sign, sub=""),
    "a name with a line break": partial(sign, sub="a\nb"),
    "another signer": partial(sign, OTHER_KEY),
    "an unknown key": partial(sign, kid="x"),
    "the key of another algorithm": partial(sign, RSA_KEY, "RS256", "e"),
    "an algorithm that is not allowed": partial(sign, RSA_KEY, "RS512"),
    "no signature": unsigned,
    "the public key as a secret": signed_with_the_public_key,
    "a key of its own": with_a_key_of_its_own,
    "altered": altered,
    "critical extensions": lambda: jwt.encode(
        claims(), RSA_KEY, "RS256", headers={"kid": "r", "crit": ["b64"], "b64": True}
    ),
    "no token": lambda: "a.b.c",
    "unicode": lambda: "ä.ö.ü",
}


@pytest.mark.parametrize("name", REFUSED)
def test_any_other_token_lets_no_one_in(name: str, tmp_path: Path) -> None:
    assert who(bearers(tmp_path), REFUSED[name]()) is None


def test_claims_say_what_a_bearer_may_do(tmp_path: Path) -> None:
    rules = {
        "claims": {"name": "email", "models": "models", "tokens_per_minute": "tpm"},
        "requests_per_minute": 10,
        "tokens_per_minute": 100,
    }
    known = bearers(tmp_path, rules)
    principal = who(known, sign(email="ada@x.example", models=["pebble"], tpm=500))
    assert principal is not None
    assert (principal.name, principal.models) == ("ada@x.example", frozenset({"pebble"}))
    limits = principal.limits
    assert (limits.requests_per_minute, limits.tokens_per_minute) == (10, 500)
    assert who(known, sign(email="ada@x.example", models="all")) is None


def test_a_token_that_was_judged_is_not_judged_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = bearers(tmp_path)
    token = sign()
    first = who(known, token)
    monkeypatch.setattr(jwt, "decode", None)
    assert who(known, token) is first


def test_new_keys_of_the_issuer_count_from_the_next_look_on(tmp_path: Path) -> None:
    known = bearers(tmp_path)
    token = sign()
    assert who(known, token) is not None
    (tmp_path / "jwks.json").write_text(json.dumps({"keys": KEYS[1:]}))
    known.refresh()
    assert who(known, token) is None
    (tmp_path / "jwks.json").write_text("broken")
    known.refresh()
    assert who(known, sign(EC_KEY, "ES256", "e")) is not None


@pytest.mark.parametrize(
    ("rules", "keys", "said"),
    [
        ({"audience": None}, None, "`audience` must be a text"),
        ({"algorithms": ["HS256"]}, None, "`algorithms` must be a list of some of ES256"),
        ({"algorithms": ["none"]}, None, "`algorithms` must be a list of some of ES256"),
        ({"audiences": "x"}, None, "`audiences` is not known"),
        ({"jwks": "none.json"}, None, "cannot be read"),
        ({}, [{"kty": "oct", "k": "c2VjcmV0", "kid": "s"}], "key 1: it is symmetric"),
        ({}, [KEYS[0], KEYS[0]], "key 2: another key has its `kid`"),
        ({}, [], "must hold a list of keys"),
        ({"algorithms": ["PS256"]}, [KEYS[1]], "holds no key that signs with PS256"),
    ],
)
def test_a_start_is_refused_with_what_is_wrong(
    rules: dict[str, Any], keys: list[Any] | None, said: str, tmp_path: Path
) -> None:
    with pytest.raises(AccessError, match=said):
        bearers(tmp_path, rules, keys)
