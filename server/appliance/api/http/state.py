"""What the HTTP faces share: the service, whether it can serve, what is running, and the limits."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from appliance.completion import CompletionService
from appliance.errors import InvalidRequest, ModelNotFound, NotReady
from appliance.metrics import Metrics
from appliance.models.identity import Identity

Status = Literal["loading", "ready", "draining", "failed"]


@dataclass(slots=True, kw_only=True)
class ApplianceState:
    """Built once by the wiring, handed to `create_app`; read and changed on the event loop only."""

    metrics: Metrics
    max_body_bytes: int
    bound_host: str
    allowed_hosts: tuple[str, ...] = ()
    generation: str | None = None
    ping_interval_s: float | None = None  # None: a stream with nothing to say is silent
    status: Status = "loading"
    reason: str = "The model is being loaded."
    service: CompletionService | None = (
        None  # this and the next two from the moment of `become_ready`
    )
    identity: Identity | None = None
    max_context_tokens: int | None = None
    max_choices: int | None = None  # running and waiting together: more never fit
    num_open_responses: int = 0  # to requests whose body has been read; kept by the Edge
    is_stalled: Callable[[], bool] = lambda: False
    created_at: int = field(default_factory=lambda: int(time.time()))

    def become_ready(
        self, service: CompletionService, identity: Identity, *, max_context_tokens: int
    ) -> None:
        self.service, self.identity = service, identity
        self.max_context_tokens = max_context_tokens
        if self.status != "draining":
            self.recover()

    def drain(self) -> None:
        """Be unready from now on. Requests are served on until the engine refuses them."""
        self._change("draining", "The server is shutting down.")

    def fail(self, reason: str) -> None:
        """`reason` goes to clients: no path, no traceback."""
        self._change("failed", reason)

    def recover(self) -> None:
        self._change("ready", "")

    def _change(self, status: Status, reason: str) -> None:
        self.status, self.reason = status, reason
        self.metrics.set_ready(is_ready=status == "ready")

    def require(self, model: str | None = None) -> tuple[CompletionService, Identity]:
        """What answers, for a request that names `model` (None: whichever runs)."""
        if self.service is None or self.identity is None:
            raise NotReady(f"{self.reason} GET /health tells when the server is ready.")
        if model is not None and model != self.identity.model:
            raise ModelNotFound(
                f"This server does not serve that model, only {self.identity.model}.",
                param="model",
            )
        return self.service, self.identity

    def check_num_choices(self, num_prompts: int, n: int = 1, *, param: str = "prompt") -> None:
        """Refuse what would be overload however long the client waited."""
        num_choices = num_prompts * n
        if self.max_choices is not None and num_choices > self.max_choices:
            name = "n" if n > 1 else param
            asked = f"`n` is {n}" if n > 1 else f"`{param}` is a list"
            raise InvalidRequest(
                f"{asked}, so that {num_choices} answers are asked for; this server takes at most"
                f" {self.max_choices} at a time. Send several requests.",
                param=name,
            )
