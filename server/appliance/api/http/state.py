"""Holds what the HTTP faces share: the models, whether they can be asked, and the limits."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from appliance.api.http.gate import Gate
from appliance.completion import Models
from appliance.metrics import Metrics

Status = Literal["loading", "ready", "draining", "failed"]


@dataclass(slots=True, kw_only=True)
class ApplianceState:
    """Built once by the wiring, handed to `create_app`; read and changed on the event loop only."""

    metrics: Metrics
    models: Models
    max_body_bytes: int
    bound_host: str
    allowed_hosts: tuple[str, ...] = ()
    generation: str | None = None
    ping_interval_s: float | None = None  # None: a stream with nothing to say is silent
    status: Status = "loading"
    reason: str = "The model is being loaded."
    num_open_responses: int = 0  # to requests whose body has been read; kept by the Edge
    is_stalled: Callable[[], bool] = lambda: False
    gate: Gate = field(default_factory=Gate)
    cors_origins: tuple[str, ...] = ()
    created_at: int = field(default_factory=lambda: int(time.time()))

    def become_ready(self) -> None:
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
