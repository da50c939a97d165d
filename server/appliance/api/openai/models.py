"""GET /v1/models: the models of this process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field
from starlette.responses import Response

from appliance.api.http.route import MODEL_ERRORS, StateDependency
from appliance.api.http.sse import json_bytes
from appliance.api.http.state import ApplianceState
from appliance.completion import ListedModel, model_not_found
from appliance.errors import NotReady

router = APIRouter(tags=["OpenAI"])

ERRORS = {status: MODEL_ERRORS[status] for status in (404, 503, "default")}


class ModelObject(BaseModel):
    """A model this server serves."""

    id: Annotated[str, Field(description="The name that requests use.")]
    object: Literal["model"]
    created: Annotated[int, Field(description="When this server started, in Unix time.")]
    owned_by: Literal["llama-appliance"]
    status: Annotated[
        Literal["unloaded", "loading", "ready", "failed"],
        Field(description="unloaded: the first request loads it."),
    ]
    max_model_len: Annotated[
        int | None, Field(description="Tokens its context holds; null until it is loaded.")
    ]
    hashes: Annotated[
        dict[str, str | None] | None,
        Field(description="Short hashes of its parts; null until it is loaded."),
    ]


class ModelList(BaseModel):
    """All models, the default one first."""

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
    """The models of this server, loaded or not."""
    models = {"object": "list", "data": [_model(state, each) for each in listed_models(state)]}
    return Response(json_bytes(models), media_type="application/json")


@router.get(
    "/v1/models/{model:path}",
    summary="Describe a model",
    response_description="The model.",
    response_model=ModelObject,
    responses={**ERRORS},
)
async def get_model(model: str, state: StateDependency) -> Response:
    """404 unless the server has it."""
    found = listed_models(state)
    for listed in found:
        if listed.name == model:
            return Response(json_bytes(_model(state, listed)), media_type="application/json")
    raise model_not_found(found)


def listed_models(state: ApplianceState) -> Sequence[ListedModel]:
    """The models, once one of them answers: a client that asks early tries again."""
    found = state.models.listed()
    if state.status == "loading" and not any(listed.served for listed in found):
        raise NotReady(f"{state.reason} GET /health tells when the server is ready.")
    return found


def _model(state: ApplianceState, listed: ListedModel) -> dict[str, object]:
    served = listed.served
    return {
        "id": listed.name,
        "object": "model",
        "created": state.created_at,
        "owned_by": "llama-appliance",
        "status": listed.status,
        "max_model_len": served and served.max_context_tokens,
        "hashes": served and served.identity.short(),
    }
