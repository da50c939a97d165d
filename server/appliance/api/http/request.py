"""One HTTP request as endpoints see it: its head, its body, and the state of the process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import TYPE_CHECKING, TypedDict, cast

from appliance.completion import Account, Served

if TYPE_CHECKING:
    from appliance.api.http.asgi import Receive, Scope
    from appliance.api.http.gate import Visit
    from appliance.api.http.router import Router
    from appliance.api.http.state import ApplianceState
    from appliance.api.http.table import Handler


class ClientDisconnect(Exception):
    """The client left before its body was complete."""


class Headers:
    """A request's headers; names are written in lower case."""

    __slots__ = ("_raw",)

    def __init__(self, raw: Iterable[tuple[bytes, bytes]]) -> None:
        self._raw = raw

    def get(self, name: str, default: str = "") -> str:
        """The first value under `name`."""
        wanted = name.encode()
        for key, value in self._raw:
            if key == wanted:
                return value.decode("latin-1")
        return default

    def getlist(self, name: str) -> list[str]:
        wanted = name.encode()
        return [value.decode("latin-1") for key, value in self._raw if key == wanted]


class Asking(TypedDict):
    """The fields of CompletionRequest that say who asks."""

    request_id: str
    cache_salt: bytes
    owner: str
    priority: int
    account: Account | None


class Request:
    """What an endpoint may want to know beside its parameters."""

    __slots__ = ("appliance", "handler", "headers", "receive", "scope")

    def __init__(
        self, scope: Scope, receive: Receive, state: ApplianceState, handler: Handler
    ) -> None:
        self.scope = scope
        self.receive = receive
        self.headers = Headers(scope["headers"])
        self.appliance = state
        self.handler = handler

    @property
    def request_id(self) -> str:
        return cast("str", self.scope["request_id"])

    @property
    def visit(self) -> Visit:
        """Who asks, and the account of the answers."""
        return cast("Visit", self.scope["visit"])

    async def find(self, model: str | None) -> Served:
        """Return the model of that name, or the first one; raises what `Models.find` does."""
        served = await self.appliance.models.find(model, self.visit.principal)
        self.visit.identity = served.identity
        return served

    def asking(self) -> Asking:
        """Return who asks, as every CompletionRequest of this request says it."""
        principal = self.visit.principal
        return {
            "request_id": self.request_id,
            "cache_salt": principal.cache_salt,
            "owner": principal.owner,
            "priority": principal.priority,
            "account": self.visit.account,
        }

    async def describe(self) -> str:
        """The description of all that this server answers, as JSON."""
        return await cast("Router", self.scope["app"]).describe()

    def error_bytes(self, error: Exception) -> bytes:
        """Write `error` as this request's face does."""
        return self.handler.face.error_bytes(error, self.handler.route.words)

    async def stream(self) -> AsyncIterator[bytes]:
        """Yield the body as it arrives."""
        more = True
        while more:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            if chunk := message.get("body", b""):
                yield chunk
            more = message.get("more_body", False)
