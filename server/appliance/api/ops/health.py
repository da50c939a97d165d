"""Whether the process lives, whether it can serve, what it is, and its metrics."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

import appliance
from appliance.api.http.request import Request
from appliance.api.http.response import JsonResponse, Response
from appliance.api.http.route import Responses, Route
from appliance.api.http.state import ApplianceState
from appliance.api.schema.answer import AnswerModel
from appliance.completion import ListedModel, ModelStatus
from appliance.metrics import CONTENT_TYPE


class ModelHealth(AnswerModel):
    """One model of several."""

    model: Annotated[str, Field(description="Its name.")]
    status: Annotated[ModelStatus, Field(description="unloaded: the first request loads it.")]
    required: Annotated[bool, Field(description="The server is ready only while this model is.")]
    reason: Annotated[str, Field(description="Why it is not ready; else empty.")]


class Ready(AnswerModel):
    """The server answers requests."""

    status: Literal["ok"]
    model: Annotated[str, Field(description="The model that requests get which name none.")]
    models: Annotated[list[ModelHealth], Field(description="All models, that one first.")]
    generation: Annotated[str | None, Field(description="The environment's generation, if set.")]
    version: Annotated[str, Field(description="The server's version.")]
    fingerprint: Annotated[
        str | None, Field(description="One hash over all that can change an answer.")
    ]
    hashes: Annotated[dict[str, str | None] | None, Field(description="Short hashes of its parts.")]


class NotReadyYet(AnswerModel):
    """The server does not answer requests."""

    status: Annotated[Literal["loading", "draining", "failed"], Field(description="Why in a word.")]
    reason: Annotated[str, Field(description="Why, in a sentence.")]
    models: Annotated[list[ModelHealth], Field(description="All models, the default one first.")]


class Life(AnswerModel):
    """alive, or stalled: there is work and it does not go on."""

    status: Annotated[Literal["alive", "stalled"], Field(description="Which of the two.")]


class ModelVersion(AnswerModel):
    """What one model is made of; null where it is not loaded."""

    model: Annotated[str, Field(description="Its name.")]
    fingerprint: Annotated[
        str | None, Field(description="One hash over all that can change an answer.")
    ]
    hashes: Annotated[dict[str, str | None] | None, Field(description="Hashes of its parts.")]
    runtime: Annotated[
        dict[str, str | int] | None, Field(description="Engine, dtype, device, threads and ISA.")
    ]


class Version(AnswerModel):
    """What runs here; hashes are full SHA-256 and null until the model is loaded."""

    name: Literal["llama-appliance"]
    version: Annotated[str, Field(description="The server's version.")]
    generation: Annotated[str | None, Field(description="The environment's generation, if set.")]
    model: Annotated[str | None, Field(description="The model that requests get which name none.")]
    fingerprint: Annotated[
        str | None, Field(description="One hash over all that can change an answer.")
    ]
    hashes: Annotated[dict[str, str | None] | None, Field(description="Hashes of its parts.")]
    runtime: Annotated[
        dict[str, str | int] | None, Field(description="Engine, dtype, device, threads and ISA.")
    ]
    models: Annotated[list[ModelVersion], Field(description="All models, that one first.")]


NOT_READY: Responses = {503: {"model": NotReadyYet, "description": "Not ready."}}


async def get_health(request: Request) -> Response:
    """200 from the moment the model answers until the server drains; else 503 and the reason."""
    state = request.appliance
    return _json(_health(state), status=200 if state.status == "ready" else 503)


HEALTH = Route(
    method="GET",
    path="/health",
    endpoint=get_health,
    is_public=True,
    tags=("Operations",),
    summary="Readiness",
    response_description="Ready.",
    response_model=Ready,
    responses=NOT_READY,
)


async def get_readiness(request: Request) -> Response:
    """The same as /health, under the name that Kubernetes knows."""
    return await get_health(request)


READINESS = Route(
    method="GET",
    path="/readyz",
    endpoint=get_readiness,
    is_public=True,
    tags=("Operations",),
    summary="Readiness, for probes",
    response_description="Ready.",
    response_model=Ready,
    responses=NOT_READY,
)


async def get_liveness(request: Request) -> Response:
    """503 only if there is work and the engine has made no step for too long."""
    if request.appliance.is_stalled():
        return _json({"status": "stalled"}, status=503)
    return _json({"status": "alive"})


LIVENESS = Route(
    method="GET",
    path="/livez",
    endpoint=get_liveness,
    is_public=True,
    tags=("Operations",),
    summary="Liveness, for probes",
    response_description="It lives.",
    response_model=Life,
    responses={503: {"model": Life, "description": "Restart it."}},
)


async def get_version(request: Request) -> Response:
    """Enough to find out whether two servers are the same."""
    state = request.appliance
    models = [_model_version(listed) for listed in state.models.listed(request.visit.principal)]
    first = models[0] if models and models[0]["fingerprint"] is not None else NO_MODEL
    version: dict[str, object] = {
        "name": "llama-appliance",
        "version": appliance.__version__,
        "generation": state.generation,
        **first,
        "models": models,
    }
    return _json(version)


VERSION = Route(
    method="GET",
    path="/version",
    endpoint=get_version,
    tags=("Operations",),
    summary="What runs here",
    response_description="Versions and hashes.",
    response_model=Version,
)


async def get_metrics(request: Request) -> Response:
    """All series of this process."""
    return Response(request.appliance.metrics.render(), headers={"Content-Type": CONTENT_TYPE})


METRICS = Route(
    method="GET",
    path="/metrics",
    endpoint=get_metrics,
    tags=("Operations",),
    summary="Metrics for Prometheus",
    media_type=None,
    responses={200: {"content": {"text/plain": {}}, "description": "Prometheus' text format."}},
)


NO_MODEL = dict.fromkeys(("model", "fingerprint", "hashes", "runtime"))


def _model_version(listed: ListedModel) -> dict[str, object]:
    identity = listed.served and listed.served.identity
    return {
        "model": listed.name,
        "fingerprint": identity and identity.fingerprint,
        "hashes": identity and identity.hashes(),
        "runtime": identity and identity.runtime(),
    }


def _health(state: ApplianceState) -> dict[str, object]:
    found = state.models.listed()
    models = [
        {
            "model": listed.name,
            "status": listed.status,
            "required": listed.is_required,
            "reason": listed.reason,
        }
        for listed in found
    ]
    if state.status != "ready":
        return {"status": state.status, "reason": state.reason, "models": models}
    identity = found[0].served and found[0].served.identity
    return {
        "status": "ok",
        "model": found[0].name,
        "generation": state.generation,
        "version": appliance.__version__,
        "fingerprint": identity and identity.fingerprint,
        "hashes": identity and identity.short(),
        "models": models,
    }


def _json(value: object, status: int = 200) -> Response:
    return JsonResponse(value, status, {"Cache-Control": "no-store"})
