"""Reads a model hub over its HTTP API; sends the token to the hub's own host alone."""

from __future__ import annotations

import http.client
import json
import re
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn
from urllib.parse import quote, urljoin, urlsplit

from appliance import __version__
from appliance.errors import ReleaseError, SettingsError
from appliance.models.hashing import is_sha256

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from email.message import Message
    from http.client import HTTPMessage
    from typing import IO

DEFAULT_ENDPOINT = "https://huggingface.co"
TIMEOUT_S = 30.0
MAX_ANSWER_BYTES = 64_000_000
RETRY_DELAYS_S = (1.0, 4.0)
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_NEXT_PAGE = re.compile(r'<([^>]+)>; *rel="next"')


@dataclass(frozen=True, slots=True, kw_only=True)
class HubFile:
    """A file of a listing; `sha256` is known of files that the hub stores by hash."""

    name: str
    size_bytes: int
    sha256: str | None
    git_oid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HubRevision:
    repository: str
    revision: str  # 40 hex digits
    license: str | None


class Broken(Exception):
    """The connection or the hub failed: another attempt may succeed."""


class Hub:
    """One endpoint, with or without a token."""

    def __init__(self, endpoint: str = DEFAULT_ENDPOINT, token: str | None = None) -> None:
        self.endpoint = endpoint.rstrip("/")
        token = (token or "").strip()
        if not token.isascii() or not all(char.isprintable() and char != " " for char in token):
            raise SettingsError("HF_TOKEN contains characters that no token has. Set it again.")
        self._has_token = bool(token)
        parts = _split(self.endpoint)
        if token and parts.scheme != "https" and parts.hostname not in LOOPBACK:
            raise SettingsError(
                f"The endpoint {endpoint} is not https, so others could read HF_TOKEN on the way."
                " Use https, or unset HF_TOKEN."
            )
        self._opener = urllib.request.build_opener(_Redirects(parts.scheme, parts.netloc, token))

    @classmethod
    def of(cls, endpoint: str | None, environ: Mapping[str, str]) -> Hub:
        """Takes the endpoint from a flag, else from HF_ENDPOINT, and the token from HF_TOKEN."""
        endpoint = endpoint or environ.get("HF_ENDPOINT") or DEFAULT_ENDPOINT
        return cls(endpoint, environ.get("HF_TOKEN"))

    def resolve(self, repository: str, revision: str) -> HubRevision:
        """Returns the commit that a branch, tag or commit names now."""
        path = f"/api/models/{repository}/revision/{quote(revision, safe='')}"
        answer, url, _ = self._json(self.endpoint + path, repository)
        found = answer.get("id") if isinstance(answer, dict) else None
        if isinstance(found, str) and found != repository:
            raise ReleaseError(f"{repository} has moved to {found}. Lock it under its new name.")
        if urlsplit(url).path != urlsplit(self.endpoint + path).path:
            raise ReleaseError(f"{repository} has moved: {url} answered. Lock its new name.")
        commit = answer.get("sha") if isinstance(answer, dict) else None
        if not isinstance(commit, str) or not re.fullmatch("[0-9a-f]{40}", commit):
            raise ReleaseError(f"{self.endpoint} did not say which commit {revision} is.")
        return HubRevision(repository=repository, revision=commit, license=_license(answer))

    def list_files(self, at: HubRevision) -> Iterator[HubFile]:
        """Lists the files at the top of the repository; a server reads none in folders."""
        page: str | None = f"{self.endpoint}/api/models/{at.repository}/tree/{at.revision}"
        while page is not None:
            answer, url, headers = self._json(page, at.repository)
            if not isinstance(answer, list):
                raise ReleaseError(f"{self.endpoint} sent no list of files for {at.repository}.")
            yield from (_file(each) for each in answer if each.get("type") == "file")
            following = _NEXT_PAGE.search(headers.get("Link") or "")
            page = urljoin(url, following[1]) if following else None
            if page is not None and urlsplit(page).scheme != urlsplit(self.endpoint).scheme:
                raise ReleaseError(f"{self.endpoint} says that its list goes on at {page}.")

    def read(self, at: HubRevision, name: str) -> bytes:
        """Returns the content of a small file."""
        return self._read(self.file_url(at.repository, at.revision, name), at.repository)[0]

    def file_url(self, repository: str, revision: str, name: str) -> str:
        return f"{self.endpoint}/{repository}/resolve/{revision}/{quote(name)}"

    def open(self, url: str, repository: str, *, offset: int = 0) -> http.client.HTTPResponse:
        """Opens a file: from `offset` on (status 206) or from its start (200). Raises Broken."""
        headers = {"User-Agent": f"appliance/{__version__}", "Accept-Encoding": "identity"}
        if offset:
            headers["Range"] = f"bytes={offset}-"
        try:
            request = urllib.request.Request(url, headers=headers)  # noqa: S310
            response: http.client.HTTPResponse = self._opener.open(request, timeout=TIMEOUT_S)
        except urllib.error.HTTPError as error:
            with error:
                self._refuse(error, repository)
        except (OSError, http.client.HTTPException) as error:
            raise Broken(str(getattr(error, "reason", None) or error)) from None
        return response

    def _json(self, url: str, repository: str) -> tuple[object, str, Message]:
        """Returns the value, the address after all redirects, and the headers."""
        content, found, headers = self._read(url, repository)
        try:
            return json.loads(content), found, headers
        except ValueError:
            raise ReleaseError(f"{url} is not JSON; is {self.endpoint} a model hub?") from None

    def _read(self, url: str, repository: str) -> tuple[bytes, str, Message]:
        for delay_s in (*RETRY_DELAYS_S, None):
            try:
                with self.open(url, repository) as response:
                    content = response.read(MAX_ANSWER_BYTES + 1)
                if len(content) > MAX_ANSWER_BYTES:
                    raise ReleaseError(f"{url} sent more than {MAX_ANSWER_BYTES:,} bytes.")
                return content, response.url, response.headers
            except (Broken, OSError, http.client.HTTPException) as error:
                if delay_s is None:
                    raise ReleaseError(f"{self.endpoint} cannot be reached: {error}.") from None
                time.sleep(delay_s)
        raise AssertionError

    def _refuse(self, error: urllib.error.HTTPError, repository: str) -> NoReturn:
        """Raises an error that says what to do about the answer."""
        code = error.headers.get("X-Error-Code", "")
        url = urlsplit(error.url or "")._replace(query="").geturl()  # which may be signed
        if error.code in (401, 403) and urlsplit(url).netloc != urlsplit(self.endpoint).netloc:
            raise Broken(f"{url} answered {error.code}, as it does when a link has expired")
        if error.code == 401:
            raise ReleaseError(self._unauthorized(repository))
        if error.code == 403:
            raise ReleaseError(
                f"{self.endpoint} refuses {repository} to this token (403). Accept the licence at"
                f" {self.endpoint}/{repository} with the account that made the token, and give a"
                " fine-grained token the right to read gated repositories."
            )
        if error.code == 404:
            raise ReleaseError(_absent(self.endpoint, repository, code, url))
        if error.code == 429 or error.code >= 500:
            raise Broken(f"it answered {error.code}")
        raise ReleaseError(f"{self.endpoint} answered {error.code} for {url}.")

    def _unauthorized(self, repository: str) -> str:
        if self._has_token:
            return f"{self.endpoint} does not know the token in HF_TOKEN (401). Make a new one."
        return (
            f"{repository} is gated, private or does not exist ({self.endpoint} answered 401). For"
            f" a gated one: accept its licence at {self.endpoint}/{repository}, make a token there"
            " and set HF_TOKEN."
        )


class _Redirects(urllib.request.HTTPRedirectHandler, urllib.request.BaseHandler):
    """Adds the token to requests for the hub's own host, and not to redirects elsewhere."""

    def __init__(self, scheme: str, host: str, token: str) -> None:
        self._scheme, self._host, self._token = scheme, host, token

    def http_request(self, request: urllib.request.Request) -> urllib.request.Request:
        is_ours = (request.type, request.host) == (self._scheme, self._host)
        if self._token and is_ours:
            request.add_unredirected_header("Authorization", f"Bearer {self._token}")
        return request

    https_request = http_request

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        if self._scheme == "https" and urlsplit(newurl).scheme != "https":
            raise ReleaseError(f"{req.full_url} leads to {newurl}, which is not https.")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _split(endpoint: str) -> urllib.parse.SplitResult:
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SettingsError(f"The endpoint is {endpoint!r}; it must look like {DEFAULT_ENDPOINT}.")
    return parts


def _absent(endpoint: str, repository: str, code: str, url: str) -> str:
    if code == "RevisionNotFound":
        return (
            f"{repository} has no such revision at {endpoint} (404). Name a branch, tag or commit."
        )
    if code == "EntryNotFound":
        return f"{url} does not exist (404), although the lock or the listing names it."
    return f"There is no model {repository} at {endpoint} (404). Models are named ORG/NAME."


def _license(answer: object) -> str | None:
    """Returns the licence of the model card; for `other`, the name beside it."""
    card = answer.get("cardData") if isinstance(answer, dict) else None
    if not isinstance(card, dict):
        return None
    found = card.get("license")
    if found == "other" and isinstance(card.get("license_name"), str):
        found = card["license_name"]
    return found if isinstance(found, str) else None


def _file(entry: dict[str, object]) -> HubFile:
    lfs = entry.get("lfs")
    sha256 = lfs.get("oid") if isinstance(lfs, dict) else None
    name, size, oid = entry.get("path"), entry.get("size"), entry.get("oid")
    if not isinstance(name, str) or type(size) is not int or not isinstance(oid, str):
        raise ReleaseError("The hub's list of files has an entry without path, size or oid.")
    if sha256 is not None and not is_sha256(sha256):
        raise ReleaseError(f"The hub lists {name} with a hash that is no SHA-256.")
    return HubFile(name=name, size_bytes=size, sha256=sha256, git_oid=oid)
