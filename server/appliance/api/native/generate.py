"""POST /generate: a prompt in, its continuation out; parameters are named as in transformers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from appliance.api.http.answer import answer
from appliance.api.http.request import Request
from appliance.api.http.response import Response, json_bytes
from appliance.api.http.route import ERRORS, Route
from appliance.api.http.sse import DONE
from appliance.api.schema import examples
from appliance.api.schema.answer import AnswerModel
from appliance.api.schema.fields import MAX_COUNT, ModelName, SamplingModel
from appliance.api.schema.neutral import OF_TEXT
from appliance.api.schema.repeat import AnswerTokenIds, PromptTokenIds, Seed, ids_member
from appliance.api.schema.usage import UsageObject, usage_dict
from appliance.completion import (
    Completion,
    CompletionRequest,
    Delta,
    Provenance,
    Stream,
    Usage,
)

DEFAULT_NEW_TOKENS = 256


class GenerateRequest(SamplingModel):
    """What to continue, how long, and how tokens are chosen."""

    neutral = OF_TEXT

    model: Annotated[
        ModelName | None, Field(description="A model of GET /v1/models; default: the first one.")
    ] = None
    prompt: Annotated[str, Field(description="The text to continue.")]
    max_length: Annotated[
        int | None,
        Field(ge=1, le=MAX_COUNT, description="Tokens of prompt and answer together, at most."),
    ] = None
    max_new_tokens: Annotated[
        int | None,
        Field(
            ge=1,
            le=MAX_COUNT,
            description="Tokens of the answer, at most. With neither limit: 256, or what fits the"
            " context. With both, they must end at the same length.",
        ),
    ] = None
    return_full_text: Annotated[
        bool | None,
        Field(description="Begin generated_text with the prompt, as transformers' pipeline does."),
    ] = False


class GenerateResponse(AnswerModel):
    """The answer and what made it."""

    generated_text: Annotated[
        str, Field(description="The continuation alone, unless return_full_text was set.")
    ]
    finish_reason: Annotated[
        Literal["stop", "length"], Field(description="stop: it ended; length: it was cut.")
    ]
    usage: UsageObject
    seed: Seed
    model: Annotated[str, Field(description="The model that answered.")]
    identity: Annotated[
        dict[str, str | None], Field(description="Short hashes of what made this answer.")
    ]
    prompt_token_ids: PromptTokenIds = None
    token_ids: AnswerTokenIds = None


EXAMPLE_ANSWER = (
    'data: {"text":" there was"}\n\ndata: {"text":" a cat.","finish_reason":"stop"}\n\n'
    'data: {"usage":{"prompt_tokens":4,"completion_tokens":5,"total_tokens":9},"seed":4,'
    '"model":"…","identity":{"weights":"…"}}\n\ndata: [DONE]\n\n'
)


async def generate(body: GenerateRequest, request: Request) -> Response:
    """Continues `prompt`. `generated_text` is the continuation alone: with `stream` its pieces add
    up to it, and the client has the prompt already. `return_full_text` puts the prompt in front."""
    served = await request.find(body.model)
    completion = to_completion_request(body, request)
    face = GenerateFace(body, served.identity, completion.seed)
    return await answer(request, served, [completion], face, streams=body.stream)


GENERATE = Route(
    method="POST",
    path="/generate",
    endpoint=generate,
    body=GenerateRequest,
    tags=("Native",),
    summary="Continue a prompt",
    response_model=GenerateResponse,
    responses={
        **ERRORS,
        200: {
            "description": "The continuation; with `stream`, as events.",
            "content": {"text/event-stream": {"example": EXAMPLE_ANSWER}},
        },
    },
    examples=examples.GENERATE,
)


def to_completion_request(body: GenerateRequest, request: Request) -> CompletionRequest:
    return CompletionRequest(
        **request.asking(),
        prompt=body.prompt,
        max_new_tokens=body.max_new_tokens,
        max_total_tokens=body.max_length,
        default_new_tokens=DEFAULT_NEW_TOKENS,
        **body.sampling(),
    )


def provenance(identity: Provenance, usage: Usage, seed: int) -> dict[str, object]:
    return {
        "usage": usage_dict(usage),
        "seed": seed,
        "model": identity.model,
        "identity": {**identity.short(), "generation": identity.generation},
    }


class GenerateFace:
    """Writes a text, its usage and what made it; in a stream, the last two come before [DONE]."""

    def __init__(self, body: GenerateRequest, identity: Provenance, seed: int) -> None:
        self.identity = identity
        self.seed = seed
        self.prefix = body.prompt if body.return_full_text else ""
        self.returns_token_ids = body.return_token_ids

    def whole(self, completions: Sequence[Completion]) -> object:
        [completion] = completions
        [choice] = completion.choices
        written: dict[str, object] = {
            "generated_text": self.prefix + choice.text,
            "finish_reason": choice.finish_reason,
            **provenance(self.identity, completion.usage, self.seed),
        }
        if self.returns_token_ids:
            written |= {"prompt_token_ids": completion.prompt_ids, "token_ids": choice.token_ids}
        return written

    def begin(self, streams: Sequence[Stream]) -> bytes:
        ids = b""
        if self.returns_token_ids:
            ids = ids_member(b"prompt_token_ids", streams[0].prompt_ids)
        if not (self.prefix or ids):
            return b""
        return b'data: {"text":%b%b}\n\n' % (json_bytes(self.prefix), ids)

    def render(self, delta: Delta, _: int) -> bytes:
        ids = ids_member(b"token_ids", delta.token_ids) if delta.token_ids else b""
        if delta.finish_reason is not None:
            text, reason = json_bytes(delta.text), delta.finish_reason.encode()
            return b'data: {"text":%b,"finish_reason":"%b"%b}\n\n' % (text, reason, ids)
        if not (delta.text or ids):
            return b""
        return b'data: {"text":%b%b}\n\n' % (json_bytes(delta.text), ids)

    def end(self, streams: Sequence[Stream]) -> bytes:
        last = provenance(self.identity, streams[0].usage, self.seed)
        return b"data: " + json_bytes(last) + b"\n\n" + DONE
