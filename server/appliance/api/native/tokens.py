"""POST /tokenize and /detokenize: what the model sees of a text."""

from __future__ import annotations

import asyncio
from typing import Annotated, Self

from pydantic import Field, model_validator

from appliance.api.http.request import Request
from appliance.api.http.response import JsonResponse, Response
from appliance.api.http.route import MODEL_ERRORS, Route
from appliance.api.schema import examples
from appliance.api.schema.answer import AnswerModel
from appliance.api.schema.fields import MAX_COUNT, ModelName, RequestModel
from appliance.api.schema.messages import MAX_MESSAGES, Message, template_messages
from appliance.completion import ChatPrompt, given
from appliance.errors import InvalidRequest

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


class TokenizeResponse(AnswerModel):
    """The tokens of a text."""

    count: Annotated[int, Field(description="How many they are.")]
    max_model_len: Annotated[int | None, Field(description="How many the context holds.")]
    tokens: Annotated[list[int], Field(description="Their ids.")]


class DetokenizeRequest(RequestModel):
    """Token ids."""

    model: ModelName | None = None
    tokens: Annotated[list[TokenId], Field(fail_fast=True, description="Their ids.")]


class DetokenizeResponse(AnswerModel):
    """Their text."""

    prompt: Annotated[str, Field(description="Special tokens are written out.")]


async def tokenize(body: TokenizeRequest, request: Request) -> Response:
    """The token ids that a prompt or a conversation becomes."""
    served = await request.find(body.model)
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
    return JsonResponse(answer)


TOKENIZE = Route(
    method="POST",
    path="/tokenize",
    endpoint=tokenize,
    body=TokenizeRequest,
    tags=("Tokens",),
    summary="Text to token ids",
    response_description="The token ids.",
    response_model=TokenizeResponse,
    responses=MODEL_ERRORS,
    examples=examples.TOKENIZE,
)


async def detokenize(body: DetokenizeRequest, request: Request) -> Response:
    """The text of token ids; special tokens are written out."""
    served = await request.find(body.model)
    text = await served.completions.detokenize(tuple(body.tokens))
    return JsonResponse({"prompt": text})


DETOKENIZE = Route(
    method="POST",
    path="/detokenize",
    endpoint=detokenize,
    body=DetokenizeRequest,
    words={"prompt": "tokens"},
    tags=("Tokens",),
    summary="Token ids to text",
    response_description="The text.",
    response_model=DetokenizeResponse,
    responses=MODEL_ERRORS,
    examples=examples.DETOKENIZE,
)
