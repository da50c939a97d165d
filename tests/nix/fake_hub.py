"""A stand-in for a model hub: one gated repository whose answers break off on demand."""

from __future__ import annotations

import re
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self

REPOSITORY = "demo/tiny-llama"
TOKEN = "hf_only-for-these-tests"
FILE = re.compile(rf"/{REPOSITORY}/resolve/([0-9a-f]{{40}})/(.+)")


@dataclass(frozen=True)
class Asked:
    name: str
    first_byte: int
    is_authorised: bool


@dataclass
class GatedHub:
    """Files by revision and name; who comes without the token gets 401, as at the real one."""

    revisions: dict[str, dict[str, bytes]] = field(default_factory=dict)
    cuts_after_bytes: dict[str, int] = field(
        default_factory=dict
    )  # a file's next answer ends there
    asked: list[Asked] = field(default_factory=list)
    told_by_processes: list[str] = field(default_factory=list)  # command lines with the token
    mirrored: list[str | None] = field(default_factory=list)  # Authorization of who asks a mirror
    storage: GatedHub | None = None  # where large files are, as at the real one

    def __enter__(self) -> Self:
        hub = self

        class Handler(_Handler):
            pass

        Handler.hub = hub
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"


def command_lines_with(text: str) -> list[str]:
    """What any user of this machine can see of its processes right now."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # the process has ended
            found.append(path.read_text(encoding="utf-8", errors="replace"))
    return [line for line in found if text in line]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: GatedHub

    def do_HEAD(self) -> None:
        self.hub.mirrored.append(self.headers.get("Authorization"))
        self._answer(404, b"")

    def do_GET(self) -> None:
        found = FILE.fullmatch(self.path)
        content = self.hub.revisions.get(found[1], {}).get(found[2]) if found else None
        if content is None or found is None:
            return self._answer(404, b"Entry not found")
        is_authorised = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        first = int(wanted[1]) if wanted else 0
        self.hub.asked.append(Asked(found[2], first, is_authorised))
        if not is_authorised:
            return self._answer(401, b"Access to this model is restricted.")
        self.hub.told_by_processes += command_lines_with(TOKEN)
        if self.hub.storage is not None:
            return self._answer(302, b"", {"Location": self.hub.storage.url + self.path})
        end = f"bytes {first}-{len(content) - 1}/{len(content)}"
        cut = self.hub.cuts_after_bytes.pop(found[2], None)
        status = 206 if wanted else 200
        return self._answer(status, content[first:], {"Content-Range": end}, cut=cut)

    def _answer(
        self,
        status: int,
        body: bytes,
        headers: dict[str, str] | None = None,
        *,
        cut: int | None = None,
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with suppress(ConnectionError):  # a client whose disk is full just leaves
            self.wfile.write(body[:cut])
        self.close_connection = cut is not None

    def log_message(self, format: str, *arguments: object) -> None:
        pass
