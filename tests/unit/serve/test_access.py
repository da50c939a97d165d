"""Settings of access open what they name, and refuse a start with what is wrong."""

from __future__ import annotations

import asyncio
import builtins
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from appliance.access.grant import EVERYTHING
from appliance.access.key_file import KeyFile
from appliance.errors import AccessError, SettingsError, Unauthorized
from appliance.serve.access import open_access
from appliance.settings import Settings
from tests.unit.access.test_jwt_tokens import bearers, sign
from tests.unit.access.test_token_review import write_certificate


def test_without_settings_there_is_nothing_to_watch_and_nobody_is_asked() -> None:
    access = open_access(Settings())
    assert (access.control, access.audit, access.tls, access.refreshes) == (None, None, None, [])
    asyncio.run(access.watch())
    access.close()


def test_keys_and_tokens_of_an_issuer_both_let_in(tmp_path: Path) -> None:
    file = KeyFile(tmp_path / "keys.json")
    key, _ = file.add("ada", expires=None, grant=EVERYTHING)
    bearers(tmp_path)
    access = open_access(Settings(keys=file.path, jwt=tmp_path / "jwt.json"))
    assert access.control is not None
    owners = {asyncio.run(access.control.identify(each)).owner for each in (key, sign(sub="eve"))}
    assert owners == {"key:ada", "jwt:eve"}
    file.revoke("ada")
    access.refresh()
    with pytest.raises(Unauthorized):
        asyncio.run(access.control.identify(key))


def test_without_the_library_the_line_that_installs_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real: Callable[..., Any] = builtins.__import__

    def without_jwt(name: str, *arguments: Any, **options: Any) -> Any:
        if name == "jwt":
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.delitem(sys.modules, "appliance.access.jwt_tokens", raising=False)
    monkeypatch.setattr(builtins, "__import__", without_jwt)
    with pytest.raises(SettingsError, match=r"pip install 'llama-appliance\[jwt\]'"):
        open_access(Settings(jwt=tmp_path / "jwt.json"))


def test_half_of_a_new_pair_leaves_the_certificate_that_serves(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_certificate(tmp_path)
    certificate, key = tmp_path / "ca.crt", tmp_path / "tls.key"
    access = open_access(Settings(tls_certificate=certificate, tls_key=key))
    whole = key.read_bytes()
    write_certificate(tmp_path)
    new = key.read_bytes()
    key.write_bytes(whole)  # the certificate is new, its key is not there yet
    access.refresh()
    assert [record.levelname for record in caplog.records][:1] == ["ERROR"]
    key.write_bytes(new)
    caplog.clear()
    access.refresh()
    assert "ERROR" not in {record.levelname for record in caplog.records}


def test_a_certificate_without_its_key_is_refused(tmp_path: Path) -> None:
    write_certificate(tmp_path)
    with pytest.raises(AccessError, match="cannot be used"):
        open_access(Settings(tls_certificate=tmp_path / "ca.crt"))
