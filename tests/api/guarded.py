"""A server with a fake model and a file of keys, for tests of who may ask."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from appliance.access.authenticator import KeyRing
from appliance.access.grant import read_grant
from appliance.access.key_file import KeyFile
from appliance.access.policy import AccessControl
from appliance.api.http.gate import Audit, Gate
from appliance.api.http.state import ApplianceState
from tests.api.conftest import make_state, serve_on_thread
from tests.api.fake_service import FakeService


@dataclass
class Guarded:
    """The server, its keys, and the hands of a test on both."""

    url: str
    file: KeyFile
    service: FakeService
    state: ApplianceState
    control: AccessControl

    def new_key(self, name: str, **fields: object) -> str:
        secret, _ = self.file.add(name, expires=None, grant=read_grant(fields))
        self.control.refresh()
        return secret

    def revoke(self, name: str) -> None:
        self.file.revoke(name)
        self.control.refresh()


@contextlib.contextmanager
def guarded_server(
    directory: Path, audit: Audit | None = None, origins: tuple[str, ...] = ()
) -> Iterator[Guarded]:
    file = KeyFile(directory / "keys.json")
    file.add("first", expires=None, grant=read_grant({}))
    control = AccessControl([KeyRing(file.path)])
    service = FakeService()
    state = make_state(service)
    state.gate, state.cors_origins = Gate(control, audit), origins
    with serve_on_thread(state) as port:
        yield Guarded(f"http://127.0.0.1:{port}", file, service, state, control)
