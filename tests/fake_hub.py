"""A stand-in for the Hub and its CDN, on two free ports: a gated repository, faults on demand.

It answers as the Hub's API does, as far as our client asks: the revision and the tree with LFS
hashes, 401 and 403 with X-Error-Code, a redirect of large files to another host, Range and ETag.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

REPOSITORY = "demo/tiny-llama"
REVISION = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_only-for-these-tests"
LFS_SUFFIXES = (".safetensors", ".bin")
CHUNK_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    host: str  # "hub" or "cdn"
    path: str
    range: str | None
    authorization: str | None


@dataclass(slots=True)
class FakeHub:
    """What it serves and how it misbehaves; tests change it as they go."""

    root: Path
    revision: str = REVISION  # whose files lie in `root`
    token: str | None = TOKEN
    denied_tokens: set[str] = field(default_factory=set)  # known, but without access: 403
    card: dict[str, object] = field(default_factory=lambda: {"license": "apache-2.0"})
    moved_to: str | None = None
    page_size: int = 1000
    cut_after: int | None = None  # bytes after which an answer of the CDN breaks off …
    num_cuts: int = 0  # … so many times
    num_failures: int = 0  # answers with 503
    num_expired: int = 0  # answers of the CDN with 403: the signature of a link holds for a while
    next_page: str | None = None  # where the list of files goes on
    ignores_range: bool = False
    answers_html: bool = False
    has_resolve_cache: bool = False  # small files are sent from another address of the same host
    prefix: str = ""  # before every path, as on a mirror
    corrupt: str | None = None  # the name of a file whose first byte is wrong on the way
    requests: list[Request] = field(default_factory=list)
    on_request: Callable[[], object] = lambda: None
    url: str = ""
    cdn_url: str = ""

    def paths(self, host: str = "hub") -> list[str]:
        return [request.path for request in self.requests if request.host == host]

    def names(self) -> list[str]:
        return sorted(path.name for path in self.root.iterdir())

    def content(self, name: str) -> bytes:
        return (self.root / name).read_bytes()

    def forget(self) -> None:
        """From now on the repository has nothing."""
        self.revision = "none"


def entry(hub: FakeHub, name: str) -> dict[str, object]:
    content = hub.content(name)
    blob = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
    found: dict[str, object] = {"type": "file", "path": name, "size": len(content), "oid": blob}
    if name.endswith(LFS_SUFFIXES):
        oid = hashlib.sha256(content).hexdigest()
        found["lfs"] = {"oid": oid, "size": len(content), "pointerSize": 135}
    return found


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: FakeHub
    host: str

    def log_message(self, format: str, *args: object) -> None:
        return

    def do_HEAD(self) -> None:
        """Nobody should ask so; Nix asks its mirrors so."""
        self.note()
        self.answer(404, b"")

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path).removeprefix(self.hub.prefix)
        self.note()
        if self.hub.num_failures > 0:
            self.hub.num_failures -= 1
            self.answer(503, b"busy")
        elif self.hub.answers_html:
            self.answer(200, b"<html>")
        elif self.host == "cdn" and self.hub.num_expired > 0:
            self.hub.num_expired -= 1
            self.answer(403, b"<Error>")
        elif self.host == "cdn":
            self.send_file(path.removeprefix("/blobs/"))
        elif self.is_admitted():
            self.route(path)

    def note(self) -> None:
        wanted, authorization = self.headers.get("Range"), self.headers.get("Authorization")
        self.hub.requests.append(Request(self.command, self.host, self.path, wanted, authorization))
        self.hub.on_request()

    def is_admitted(self) -> bool:
        given = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if given in self.hub.denied_tokens:
            self.answer(403, b"{}", {"X-Error-Code": "GatedRepo"})
        elif self.hub.token is not None and given != self.hub.token:
            self.answer(401, b"{}", {"X-Error-Code": "GatedRepo"})
        else:
            return True
        return False

    def route(self, path: str) -> None:
        if self.hub.moved_to and f"/{REPOSITORY}/" in path:
            new = path.replace(REPOSITORY, self.hub.moved_to)
            self.answer(307, b"", {"Location": new})
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/revision/(.+)", path):
            self.send_revision(match[1], match[2])
        elif path == f"/api/models/{REPOSITORY}/tree/{self.hub.revision}":
            self.send_tree()
        elif match := re.fullmatch(r"/api/resolve-cache/(.+)", path):
            self.send_file(match[1])
        elif match := re.fullmatch(rf"/{REPOSITORY}/resolve/{self.hub.revision}/(.+)", path):
            self.resolve(match[1])
        else:
            self.answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})

    def send_revision(self, repository: str, revision: str) -> None:
        if repository not in (REPOSITORY, self.hub.moved_to):
            self.answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        elif revision not in ("main", "refs/pr/1", self.hub.revision):
            self.answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        else:
            facts = {"id": repository, "sha": self.hub.revision, "cardData": self.hub.card}
            self.answer(200, json.dumps(facts).encode())

    def send_tree(self) -> None:
        query = urlsplit(self.path).query
        start = int(query.removeprefix("cursor=") or 0)
        end = start + self.hub.page_size
        names = self.hub.names()
        entries: list[dict[str, object]] = [entry(self.hub, name) for name in names[start:end]]
        if not start:
            entries.append({"type": "directory", "path": "original", "size": 0, "oid": "0" * 40})
        following = f"{self.hub.url}/api/models/{REPOSITORY}/tree/{self.hub.revision}?cursor={end}"
        following = self.hub.next_page or following
        links = {"Link": f'<{following}>; rel="next"'} if end < len(names) else {}
        self.answer(200, json.dumps(entries).encode(), links)

    def resolve(self, name: str) -> None:
        if name not in self.hub.names():
            self.answer(404, b"{}", {"X-Error-Code": "EntryNotFound"})
        elif name.endswith(LFS_SUFFIXES):
            self.answer(302, b"", {"Location": f"{self.hub.cdn_url}/blobs/{name}?signature=secret"})
        elif self.hub.has_resolve_cache:
            self.answer(307, b"", {"Location": f"/api/resolve-cache/{name}"})
        else:
            self.send_file(name)

    def send_file(self, name: str) -> None:
        content = self.hub.content(name)
        etag = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "Accept-Ranges": "bytes"}
        if self.hub.corrupt == name:
            content = bytes([content[0] ^ 1]) + content[1:]
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        start = int(wanted[1]) if wanted and not self.hub.ignores_range else 0
        if start and start >= len(content):
            self.answer(416, b"", {"Content-Range": f"bytes */{len(content)}"})
            return
        if start:
            last = len(content) - 1
            etag["Content-Range"] = f"bytes {start}-{last}/{len(content)}"
        self.answer(206 if start else 200, content[start:], etag)

    def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        limit = self.hub.cut_after
        if self.host == "cdn" and self.hub.num_cuts > 0 and limit is not None and limit < len(body):
            self.hub.num_cuts -= 1
            body = body[:limit]
            self.close_connection = True
        with suppress(ConnectionError):  # a client whose disk is full just leaves
            for place in range(0, len(body), CHUNK_BYTES):
                self.wfile.write(body[place : place + CHUNK_BYTES])


@contextmanager
def serving(hub: FakeHub) -> Iterator[FakeHub]:
    """Both hosts, on loopback, until the end of the block."""
    servers = []
    for host in ("hub", "cdn"):
        handler = type("Bound", (Handler,), {"hub": hub, "host": host})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        servers.append(server)
    hub.url, hub.cdn_url = (f"http://127.0.0.1:{server.server_port}" for server in servers)
    try:
        yield hub
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()
