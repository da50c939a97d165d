"""GET /v1/models: the one model there is."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field
from starlette.responses import Response

from appliance.api.http.route import MODEL_ERRORS, StateDependency
from appliance.api.http.sse import json_bytes
from appliance.api.http.state import ApplianceState
from appliance.models.identity import Identity

router = APIRouter(tags=["OpenAI"])

ERRORS = {status: MODEL_ERRORS[status] for status in (404, 503, "default")}


class ModelObject(BaseModel):
    """A model this server serves."""

    id: Annotated[str, Field(description="What requests call it.")]
    object: Literal["model"]
    created: Annotated[int, Field(description="When this server started, in Unix time.")]
    owned_by: Literal["llama-appliance"]
    max_model_len: Annotated[int | None, Field(description="Tokens its context holds.")]
    hashes: Annotated[dict[str, str | None], Field(description="Short hashes of its parts.")]


class ModelList(BaseModel):
    """All models: one."""

    object: Literal["list"]
    data: list[ModelObject]


@router.get(
    "/v1/models",
    summary="List the models",
    response_description="The list.",
    response_model=ModelList,
    responses={**ERRORS},
)
async def list_models(state: StateDependency) -> Response:
    """The model this server runs, as a list of one."""
    _, identity = state.require()
    models = {"object": "list", "data": [_model(state, identity)]}
    return Response(json_bytes(models), media_type="application/json")


@router.get(
    "/v1/models/{model:path}",
    summary="Describe a model",
    response_description="The model.",
    response_model=ModelObject,
    responses={**ERRORS},
)
async def get_model(model: str, state: StateDependency) -> Response:
    """404 unless it is the model this server runs."""
    _, identity = state.require(model)
    return Response(json_bytes(_model(state, identity)), media_type="application/json")


def _model(state: ApplianceState, identity: Identity) -> dict[str, object]:
    return {
        "id": identity.model,
        "object": "model",
        "created": state.created_at,
        "owned_by": "llama-appliance",
        "max_model_len": state.max_context_tokens,
        "hashes": identity.short(),
    }
