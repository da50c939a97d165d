"""Wraps the router: names each request, checks its Host, answers unexpected exceptions."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import re
import time
import uuid
from typing import TYPE_CHECKING

from appliance import logs
from appliance.api.http.cors import origin_headers, preflight
from appliance.api.http.errors import BASIC_CHALLENGE, CLIENT_CLOSED_REQUEST
from appliance.api.http.gate import limit_headers
from appliance.api.http.request import ClientDisconnect, Headers
from appliance.api.http.router import Router
from appliance.api.http.state import ApplianceState
from appliance.errors import HostNotAllowed, NotReady

if TYPE_CHECKING:
    from appliance.api.http.asgi import Message, Receive, Scope, Send

logger = logging.getLogger(__name__)

REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
WILDCARD_ADDRESSES = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 - compared, not bound


class Answer:
    """What has been sent in answer to a request; names the request in its headers."""

    def __init__(self, send: Send, request_id: str, state: ApplianceState) -> None:
        self.request_id = request_id
        self.status: int | None = None
        self.scope: Scope = {}  # of the request, once there is one
        self.further: list[tuple[bytes, bytes]] = []  # headers for pages of other origins
        self._send = send
        self._state = state

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = message["headers"]
            headers.append((b"x-request-id", self.request_id.encode()))
            headers.append((b"x-content-type-options", b"nosniff"))
            headers += self.further
            if self.status == 401:
                headers.append((b"www-authenticate", BASIC_CHALLENGE))
            if (visit := self.scope.get("visit")) is not None:
                headers += limit_headers(visit)
            # A connection that is kept would bring the client's next request here, past any load
            # balancer, until one of them is refused.
            if self._state.status == "draining" and (b"connection", b"close") not in headers:
                headers.append((b"connection", b"close"))
        await self._send(message)


class Work:
    """What a request asks of the service: open from its body's last byte to its answer's."""

    def __init__(self, receive: Receive, state: ApplianceState) -> None:
        self._receive = receive
        self._state = state
        self._is_open = False

    async def receive(self) -> Message:
        message = await self._receive()
        is_last = message["type"] == "http.request" and not message.get("more_body", False)
        if is_last and not self._is_open:
            self._is_open = True
            self._state.num_open_responses += 1
        return message

    def end(self) -> None:
        self._state.num_open_responses -= self._is_open


class Edge:
    """The ASGI application: X-Request-Id in and out, Host allow-list, the last resort for
    exceptions."""

    def __init__(self, router: Router, state: ApplianceState) -> None:
        self.router = router
        self.state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope["headers"])
        answer = Answer(send, choose_request_id(headers.get("x-request-id")), self.state)
        work = Work(receive, self.state)
        # A scope of its own: the server leaves out the body of an answer to HEAD by its own.
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        scope = {**scope, "method": method, "request_id": answer.request_id}
        answer.scope = scope
        token = logs.request_id.set(answer.request_id)
        started_at = time.perf_counter()
        try:
            await self._serve(scope, work.receive, answer, headers)
        finally:
            work.end()
            self._account(scope, answer, time.perf_counter() - started_at)
            logs.request_id.reset(token)

    async def _serve(
        self, scope: Scope, receive: Receive, answer: Answer, headers: Headers
    ) -> None:
        origins = self.state.cors_origins
        try:
            self._check_host(headers.getlist("host"))
            answer.further = origin_headers(headers, origins) if origins else []
            serve = preflight(scope["method"], headers, origins) or self.router
            await serve(scope, receive, answer.send)
        except ClientDisconnect:
            pass  # it left while it sent its body
        except HostNotAllowed as error:
            await self.router.fail(error, scope, receive, answer.send)
        except asyncio.CancelledError:  # the process ends at once
            if answer.status is None:
                ended = NotReady("The server shut down before it could answer. Try again.")
                await self.router.fail(ended, scope, receive, answer.send)
            raise
        except Exception as error:
            logger.exception("request_failed")
            if answer.status is not None:
                raise  # the server cuts the connection: a half answer must not look whole
            await self.router.fail(error, scope, receive, answer.send)

    def _account(self, scope: Scope, answer: Answer, duration_s: float) -> None:
        handler = scope.get("handler")
        route = "unmatched" if handler is None else handler.route.path
        status = answer.status or CLIENT_CLOSED_REQUEST
        self.state.metrics.observe_request(route, status, duration_s)
        logger.info(
            "http_request",
            extra={
                "method": scope["method"],
                "route": route,
                "status": status,
                "duration_s": round(duration_s, 4),
            },
        )

    def _check_host(self, hosts: list[str]) -> None:
        """Against DNS rebinding: a page of another site must not reach us under its own name.

        A request without Host comes from no browser (HTTP/1.0 health checks) and passes.
        """
        if not hosts or "*" in self.state.allowed_hosts:
            return
        if len(hosts) == 1 and self._is_allowed(host_name(hosts[0])):
            return
        raise HostNotAllowed(
            "This server does not answer to the name in the Host header."
            " Use its address, or add the name to APPLIANCE_ALLOWED_HOSTS."
        )

    def _is_allowed(self, name: str) -> bool:
        if name in LOCAL_NAMES or name == self.state.bound_host.lower():
            return True
        if name in (allowed.lower() for allowed in self.state.allowed_hosts):
            return True
        return self.state.bound_host in WILDCARD_ADDRESSES and is_ip_address(name)


def choose_request_id(given: str) -> str:
    """The client's own if it is 1 to 128 visible ASCII characters, else a fresh one."""
    if REQUEST_ID.fullmatch(given):
        return given
    return f"req-{uuid.uuid4().hex}"


def host_name(header: str) -> str:
    """The name in a Host header without port, brackets and final dot."""
    if header.startswith("["):
        return header[1:].partition("]")[0].lower()
    return header.partition(":")[0].removesuffix(".").lower()


def is_ip_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
