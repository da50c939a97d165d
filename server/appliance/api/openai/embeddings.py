"""POST /v1/embeddings: mean-pooled hidden states of a model that was made to write."""

from __future__ import annotations

import base64
import struct
from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from appliance.api.http.request import Request
from appliance.api.http.response import JsonResponse, Response
from appliance.api.http.route import MODEL_ERRORS, Route
from appliance.api.schema import examples
from appliance.api.schema.answer import AnswerModel
from appliance.api.schema.fields import ModelName, RequestModel
from appliance.api.schema.neutral import Neutral
from appliance.api.schema.prompts import Prompts, split_prompts


class EmbeddingsRequest(RequestModel):
    """Texts to place in the model's space."""

    neutral: ClassVar[Mapping[str, Neutral]] = {
        "dimensions": Neutral("a vector has as many dimensions as the model's hidden state"),
        "truncate_prompt_tokens": Neutral("shorten the input"),
        "priority": Neutral("the server sets priorities, not a request", (0,)),
    }

    model: ModelName
    input: Annotated[
        Prompts, Field(description="A text, texts, a list of token ids, or lists of token ids.")
    ]
    encoding_format: Annotated[
        Literal["float", "base64"] | None,
        Field(description="base64: little-endian 32-bit floats."),
    ] = "float"
    user: Annotated[str | None, Field(max_length=512, description="Accepted; changes nothing.")] = (
        None
    )


class EmbeddingObject(AnswerModel):
    """The vector of one input."""

    object: Literal["embedding"]
    index: Annotated[int, Field(description="Which input.")]
    embedding: Annotated[
        list[float] | str, Field(description="A vector of length 1, or its bytes in base64.")
    ]


class EmbeddingsUsage(AnswerModel):
    """Tokens of all inputs."""

    prompt_tokens: Annotated[int, Field(description="Tokens of all inputs.")]
    total_tokens: Annotated[int, Field(description="The same: nothing is written.")]


class EmbeddingsResponse(AnswerModel):
    """A vector for each input."""

    object: Literal["list"]
    data: list[EmbeddingObject]
    model: Annotated[str, Field(description="The model that embedded them.")]
    usage: EmbeddingsUsage


async def create_embeddings(body: EmbeddingsRequest, request: Request) -> Response:
    """The mean over a text's tokens of the model's final hidden states, scaled to length 1. A model
    that was trained to embed places texts better than one that was trained to write."""
    served = await request.find(body.model)
    inputs = split_prompts(body.input)
    served.check_num_choices(len(inputs))
    principal = request.visit.principal
    embeddings = await served.embedder.embed(
        tuple(inputs),
        owner=principal.owner,
        priority=principal.priority,
        account=request.visit.account,
    )
    write = _as_base64 if body.encoding_format == "base64" else list
    answer = {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": write(vector)}
            for index, vector in enumerate(embeddings.vectors)
        ],
        "model": served.identity.model,
        "usage": {"prompt_tokens": embeddings.num_tokens, "total_tokens": embeddings.num_tokens},
    }
    return JsonResponse(answer)


EMBEDDINGS = Route(
    method="POST",
    path="/v1/embeddings",
    endpoint=create_embeddings,
    body=EmbeddingsRequest,
    words={"prompt": "input"},
    tags=("OpenAI",),
    summary="Embed texts",
    response_description="A vector for each input.",
    response_model=EmbeddingsResponse,
    responses=MODEL_ERRORS,
    examples=examples.EMBEDDINGS,
)


def _as_base64(vector: Sequence[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
