"""The face that operators, probes and Prometheus know."""

from __future__ import annotations

from appliance.api.http.face import Face
from appliance.api.ops import health, key

OPS = Face(
    name="ops",
    routes=(
        health.HEALTH,
        health.READINESS,
        health.LIVENESS,
        health.VERSION,
        health.METRICS,
        key.KEY_ROUTE,
    ),
    tags=({"name": "Operations", "description": "Health, identity and metrics."},),
)
