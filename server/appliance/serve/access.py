"""Builds access control, the audit log and TLS from the settings."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from appliance import __version__
from appliance.api.http.gate import Gate
from appliance.errors import AccessError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from appliance.access.audit_log import AuditLog
    from appliance.access.authenticator import Authenticator
    from appliance.access.policy import AccessControl
    from appliance.settings import Settings

WATCH_INTERVAL_S = 1.0


@dataclass(slots=True, kw_only=True)
class Access:
    """What was built, and what to do with it while the process runs and at its end."""

    control: AccessControl | None = None
    audit: AuditLog | None = None
    tls: ssl.SSLContext | None = None
    refreshes: list[Callable[[], None]] = field(default_factory=list)

    @property
    def gate(self) -> Gate:
        return Gate(self.control, self.audit)

    async def watch(self) -> None:
        """Read changed files again, and end answers to callers who lost their access."""
        while self.refreshes:
            await asyncio.sleep(WATCH_INTERVAL_S)
            await asyncio.to_thread(self.refresh)
            if self.control is not None:
                self.control.end_revoked()

    def refresh(self) -> None:
        for refresh in self.refreshes:
            refresh()

    def close(self) -> None:
        if self.audit is not None:
            self.audit.close()


def open_access(settings: Settings) -> Access:
    """Build everything; raise if a file cannot be used, so that the server does not start."""
    access = Access()
    if settings.tls_key is not None and settings.tls_certificate is None:
        raise SettingsError("--tls-key needs --tls-certificate. Give both, or neither.")
    if settings.tls_certificate is not None:
        _open_tls(access, settings.tls_certificate, settings.tls_key)
    authenticators = _open_authenticators(settings)
    if authenticators:
        from appliance.access.policy import AccessControl

        access.control = AccessControl(authenticators)
        access.refreshes.append(access.control.refresh)
    if settings.audit_log is not None:
        from appliance.access.audit_log import AuditLog

        access.audit = AuditLog(settings.audit_log, version=__version__)
    return access


def _open_authenticators(settings: Settings) -> list[Authenticator]:
    found: list[Authenticator] = []
    if settings.keys is not None:
        from appliance.access.authenticator import KeyRing

        found.append(KeyRing(settings.keys))
    if settings.jwt is not None:
        try:
            from appliance.access.jwt_tokens import JwtBearers
        except ImportError:
            raise SettingsError(
                "--jwt needs the package pyjwt: pip install 'llama-appliance[jwt]'"
            ) from None
        found.append(JwtBearers(settings.jwt))
    if settings.token_review is not None:
        from appliance.access.token_review import ClusterTokens

        found.append(ClusterTokens(settings.token_review))
    return found


def _open_tls(access: Access, certificate: Path, key: Path | None) -> None:
    """Each handshake takes the newest pair: a context that is in use is never changed."""
    from appliance.access.watched_file import WatchedFile

    newest: ssl.SSLContext

    def load() -> None:
        nonlocal newest
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(certificate, key)
        except (OSError, ValueError) as error:
            why = getattr(error, "reason", None) or getattr(error, "strerror", None)
            raise AccessError(
                f"--tls-certificate {certificate} cannot be used: {why or 'unreadable'}. It"
                " must be a certificate chain in PEM, and --tls-key its private key."
            ) from None
        newest = context

    def choose(handshake: ssl.SSLObject, *_: object) -> None:
        """Called at the beginning of every handshake, also where the client names no host."""
        handshake.context = newest

    files = [WatchedFile(each, load) for each in (certificate, key) if each is not None]
    load()
    access.tls = newest
    access.tls.sni_callback = choose
    access.refreshes += [file.refresh for file in files]
