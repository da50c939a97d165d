"""Tokens of a cluster are judged by its API; here a small HTTPS server stands in, which speaks
TokenReview as Kubernetes documents it.
"""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import ipaddress
import json
import ssl
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from appliance.access.principal import Principal
from appliance.access.token_review import PATH, ClusterTokens
from appliance.errors import AccessError, Overloaded

AUDIENCE = "llama-appliance"
OWN_TOKEN = "token-of-this-pod"


def write_certificate(path: Path) -> None:
    """A certificate of 127.0.0.1, signed by itself, in `ca.crt`, and its key in `tls.key`."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "stand-in")])
    now = dt.datetime.now(dt.UTC)
    alternative = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(alternative, critical=False)
        .sign(key, hashes.SHA256())
    )
    (path / "ca.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (path / "tls.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )


class Cluster(HTTPServer):
    """The stand-in: knows the service accounts whose tokens a test made."""

    def __init__(self, credentials: Path) -> None:
        super().__init__(("127.0.0.1", 0), Review)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(credentials / "ca.crt", credentials / "tls.key")
        self.socket = context.wrap_socket(self.socket, server_side=True)
        self.names: dict[str, str] = {}  # token to user
        self.reviews: list[dict[str, Any]] = []
        self.knows_audiences = True
        self.status = 201

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.server_port}"

    def token(self, name: str, **changes: object) -> str:
        claims = {"aud": [AUDIENCE], "exp": int(time.time()) + 600, "sub": name} | changes
        body = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
        token = f"e30.{body}.c2ln"
        self.names[token] = name
        return token


class Review(BaseHTTPRequestHandler):
    server: Cluster

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.reviews.append(body)
        status = self.server.status
        if self.path != PATH or self.headers["Authorization"] != f"Bearer {OWN_TOKEN}":
            status = 401
        name = self.server.names.get(body["spec"]["token"])
        judged: dict[str, object] = {"authenticated": name is not None}
        if name is not None:
            judged["user"] = {"username": name, "groups": ["system:serviceaccounts"]}
        if name is not None and self.server.knows_audiences:
            judged["audiences"] = body["spec"]["audiences"]
        answer = json.dumps({**body, "status": judged}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    write_certificate(tmp_path)
    (tmp_path / "token").write_text(f"{OWN_TOKEN}\n")
    with Cluster(tmp_path) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield server
        server.shutdown()


def rules(cluster: Cluster, path: Path, **changes: object) -> Path:
    fields = {
        "audience": AUDIENCE,
        "api_server": cluster.url,
        "credentials": ".",
        "callers": [
            {"name": "system:serviceaccount:team-a:*", "models": ["pebble"], "priority": 3},
            {"name": "system:serviceaccount:team-b:bot", "requests_per_minute": 5},
        ],
    } | changes
    file = path / "review.json"
    file.write_text(json.dumps(fields))
    return file


def who(known: ClusterTokens, token: str) -> Principal | None:
    return asyncio.run(known.authenticate(token))


ADA = "system:serviceaccount:team-a:ada"


def test_a_service_account_gets_what_the_first_pattern_that_fits_says(
    cluster: Cluster, tmp_path: Path
) -> None:
    known = ClusterTokens(rules(cluster, tmp_path))
    principal = who(known, cluster.token(ADA))
    assert principal is not None
    assert (principal.owner, principal.priority) == (f"kubernetes:{ADA}", 3)
    assert principal.models == frozenset({"pebble"})
    bot = who(known, cluster.token("system:serviceaccount:team-b:bot"))
    assert bot is not None
    assert bot.limits.requests_per_minute == 5


def test_an_account_that_no_pattern_fits_is_not_let_in(cluster: Cluster, tmp_path: Path) -> None:
    known = ClusterTokens(rules(cluster, tmp_path))
    assert who(known, cluster.token("system:serviceaccount:team-c:x")) is None


def test_the_cluster_is_asked_once_a_minute_of_one_token(cluster: Cluster, tmp_path: Path) -> None:
    now = time.time()
    known = ClusterTokens(rules(cluster, tmp_path), lambda: now)
    token = cluster.token(ADA)
    for _ in range(3):
        assert who(known, token) is not None
    assert len(cluster.reviews) == 1
    cluster.names.clear()
    assert who(known, token) is not None
    now += 61
    assert who(known, token) is None
    assert len(cluster.reviews) == 2


@pytest.mark.parametrize(
    "token",
    ["", "x", "a.b.c", "e30.e30.e30", "ä.ö.ü", "e30.W10.e30"],
)
def test_what_is_no_token_for_this_server_is_not_asked_about(
    cluster: Cluster, tmp_path: Path, token: str
) -> None:
    assert who(ClusterTokens(rules(cluster, tmp_path)), token) is None
    assert cluster.reviews == []


@pytest.mark.parametrize("changes", [{"aud": ["other"]}, {"exp": 1}, {"exp": None}, {"aud": None}])
def test_a_token_that_says_it_is_not_for_us_is_not_asked_about(
    cluster: Cluster, tmp_path: Path, changes: dict[str, object]
) -> None:
    assert who(ClusterTokens(rules(cluster, tmp_path)), cluster.token(ADA, **changes)) is None
    assert cluster.reviews == []


def test_a_cluster_that_does_not_judge_audiences_is_not_believed(
    cluster: Cluster, tmp_path: Path
) -> None:
    cluster.knows_audiences = False
    assert who(ClusterTokens(rules(cluster, tmp_path)), cluster.token(ADA)) is None


def test_a_cluster_that_does_not_answer_is_no_judgement(cluster: Cluster, tmp_path: Path) -> None:
    cluster.status = 500
    known = ClusterTokens(rules(cluster, tmp_path))
    with pytest.raises(Overloaded, match="cannot say whose token this is"):
        who(known, cluster.token(ADA))
    cluster.status = 201
    assert who(known, cluster.token(ADA)) is not None


def test_a_cluster_whose_certificate_is_not_known_is_not_asked(
    cluster: Cluster, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    write_certificate(other)
    (other / "token").write_text(OWN_TOKEN)
    known = ClusterTokens(rules(cluster, tmp_path, credentials="other"))
    with pytest.raises(Overloaded):
        who(known, cluster.token(ADA))
    assert cluster.reviews == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"audience": ""}, "`audience` must be a text"),
        ({"callers": []}, "`callers` must be a list; without one"),
        ({"callers": [{"models": ["a"]}]}, "`name` must be a text"),
        ({"callers": [{"name": "x", "group": "y"}]}, "`group` is not known"),
        ({"api_server": "http://127.0.0.1"}, "must begin with https://"),
    ],
)
def test_a_start_is_refused_with_what_is_wrong(
    cluster: Cluster, tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    with pytest.raises(AccessError, match=said):
        ClusterTokens(rules(cluster, tmp_path, **changes))
