"""GET /v1/models: the models of this process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from appliance.api.http.request import Request
from appliance.api.http.response import JsonResponse, Response
from appliance.api.http.route import MODEL_ERRORS, Responses, Route
from appliance.api.http.state import ApplianceState
from appliance.api.schema.answer import AnswerModel
from appliance.completion import ListedModel, model_not_found
from appliance.errors import NotReady

ERRORS: Responses = {status: MODEL_ERRORS[status] for status in (404, 503, "default")}


class ModelObject(AnswerModel):
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


class ModelList(AnswerModel):
    """All models, the default one first."""

    object: Literal["list"]
    data: list[ModelObject]


async def list_models(request: Request) -> Response:
    """The models of this server, loaded or not."""
    state = request.appliance
    models = [_model(state, listed) for listed in listed_models(request)]
    return JsonResponse({"object": "list", "data": models})


LIST_MODELS = Route(
    method="GET",
    path="/v1/models",
    endpoint=list_models,
    tags=("OpenAI",),
    summary="List the models",
    response_description="The list.",
    response_model=ModelList,
    responses=ERRORS,
)


async def get_model(model: str, request: Request) -> Response:
    """404 unless the server has it."""
    found = listed_models(request)
    for listed in found:
        if listed.name == model:
            return JsonResponse(_model(request.appliance, listed))
    raise model_not_found(found)


MODEL = Route(
    method="GET",
    path="/v1/models/{model:path}",
    endpoint=get_model,
    tags=("OpenAI",),
    summary="Describe a model",
    response_description="The model.",
    response_model=ModelObject,
    responses=ERRORS,
)


def listed_models(request: Request) -> Sequence[ListedModel]:
    """What the caller may use, once a model answers: a client that asks early tries again."""
    state = request.appliance
    found = state.models.listed(request.visit.principal)
    if state.status == "loading" and not any(listed.served for listed in found):
        raise NotReady(f"{state.reason} GET /health says when the server is ready.")
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
