"""POST /tokenize and /detokenize: what the model sees of a text."""

from __future__ import annotations

import asyncio
from typing import Annotated, Self

from fastapi import APIRouter, Body
from pydantic import BaseModel, Field, model_validator
from starlette.responses import Response

from appliance.api.http.errors import naming
from appliance.api.http.route import MODEL_ERRORS, JsonRoute, Post
from appliance.api.http.sse import json_bytes
from appliance.api.schema import examples
from appliance.api.schema.fields import MAX_COUNT, ModelName, RequestModel
from appliance.api.schema.messages import MAX_MESSAGES, Message, template_messages
from appliance.completion import ChatPrompt, given
from appliance.errors import InvalidRequest

router = APIRouter(route_class=JsonRoute, tags=["Tokens"])

TokenId = Annotated[int, Field(ge=0, le=MAX_COUNT)]


class TokenizeRequest(RequestModel):
    """A prompt, or messages as the model's chat template writes them."""

    model: ModelName | None = None
    prompt: Annotated[str | None, Field(description="Plain text.")] = None
    messages: Annotated[
        Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES, fail_fast=True)]
        | None,
        Field(description="A conversation, up to where the answer begins."),
    ] = None
    add_special_tokens: Annotated[
        bool | None, Field(description="Put the tokens in front that the model wants there.")
    ] = True

    @model_validator(mode="after")
    def _check_input(self) -> Self:
        if (self.prompt is None) == (self.messages is None):
            raise InvalidRequest("Send either `prompt` or `messages`.", param="prompt")
        return self


class TokenizeResponse(BaseModel):
    """The tokens of a text."""

    count: Annotated[int, Field(description="How many they are.")]
    max_model_len: Annotated[int | None, Field(description="How many the context holds.")]
    tokens: Annotated[list[int], Field(description="Their ids.")]


class DetokenizeRequest(RequestModel):
    """Token ids."""

    model: ModelName | None = None
    tokens: Annotated[list[TokenId], Field(fail_fast=True, description="Their ids.")]


class DetokenizeResponse(BaseModel):
    """Their text."""

    prompt: Annotated[str, Field(description="Special tokens are written out.")]


@router.post(
    "/tokenize",
    summary="Text to token ids",
    response_description="The token ids.",
    response_model=TokenizeResponse,
    responses=MODEL_ERRORS,
)
async def tokenize(
    body: Annotated[TokenizeRequest, Body(openapi_examples=examples.TOKENIZE)],
    post: Post,
) -> Response:
    """The token ids that a prompt or a conversation becomes."""
    served = await post.find(body.model)
    prompt: str | ChatPrompt = body.prompt or ""
    if body.messages is not None:
        messages = await asyncio.to_thread(template_messages, body.messages)
        prompt = ChatPrompt(messages=messages)
    token_ids = await served.completions.tokenize(
        prompt, add_special_tokens=given(body.add_special_tokens, default=True)
    )
    answer = {
        "count": len(token_ids),
        "max_model_len": served.max_context_tokens,
        "tokens": token_ids,
    }
    return Response(json_bytes(answer), media_type="application/json")


@router.post(
    "/detokenize",
    summary="Token ids to text",
    response_description="The text.",
    response_model=DetokenizeResponse,
    responses=MODEL_ERRORS,
)
async def detokenize(
    body: Annotated[DetokenizeRequest, Body(openapi_examples=examples.DETOKENIZE)],
    post: Post,
) -> Response:
    """The text of token ids; special tokens are written out."""
    served = await post.find(body.model)
    with naming("tokens"):
        text = await served.completions.detokenize(tuple(body.tokens))
    return Response(json_bytes({"prompt": text}), media_type="application/json")
