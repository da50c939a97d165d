"""Reads the credential of a request: a bearer token, or the password that a browser asked for."""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Protocol

from appliance.errors import Unauthorized

if TYPE_CHECKING:
    from collections.abc import Sequence

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class Headers(Protocol):
    def get(self, name: str, default: str = "") -> str: ...

    def getlist(self, name: str) -> Sequence[str]: ...


def read_credential(headers: Headers, method: str) -> str:
    """The one credential that was sent; an Unauthorized says how to send one."""
    values = headers.getlist("authorization")
    if len(values) != 1:
        raise Unauthorized(
            "This server wants a key: send the header Authorization: Bearer KEY, once."
        )
    scheme, _, credential = values[0].partition(" ")
    if scheme.lower() == "bearer" and credential:
        return credential
    if scheme.lower() == "basic":
        return _password(credential, headers, method)
    raise Unauthorized("The Authorization header must have the form: Bearer KEY.")


def _password(encoded: str, headers: Headers, method: str) -> str:
    """Browsers send Basic credentials by themselves, also where another site made them send a
    request; so those count only on requests that our own pages make."""
    if method not in SAFE_METHODS and not _is_of_our_page(headers):
        raise Unauthorized("A key in Basic authentication is for this server's own pages alone.")
    try:
        user_and_password = base64.b64decode(encoded, validate=True).decode()
    except (binascii.Error, ValueError):
        raise Unauthorized("The Authorization header is not valid.") from None
    return user_and_password.partition(":")[2]


def _is_of_our_page(headers: Headers) -> bool:
    """Without either header, no browser sent it."""
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site:
        return site in ("same-origin", "none")
    return not origin or origin.partition("://")[2] == headers.get("host")
