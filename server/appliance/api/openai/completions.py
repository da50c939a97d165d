"""POST /v1/completions: prompts in, their continuations out."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated

from fastapi import APIRouter, Body
from starlette.responses import Response

from appliance.api import examples
from appliance.api.fields import given
from appliance.api.openai.completions_schema import (
    DEFAULT_NEW_TOKENS,
    CompletionsRequest,
    TextCompletion,
)
from appliance.api.openai.echo import Echo, PromptTokens, echo_logprobs, echo_of
from appliance.api.openai.logprobs import (
    TextLogprobsDict,
    TextOffsets,
    text_logprobs,
    token_bytes,
)
from appliance.api.openai.prompts import split_prompts
from appliance.api.route import (
    MODEL_ERRORS,
    CacheSaltDependency,
    JsonRoute,
    RequestIdDependency,
    StateDependency,
)
from appliance.api.sse import DONE, json_bytes, start_stream
from appliance.api.usage import add_usage, openai_usage_dict
from appliance.completion import (
    Choice,
    Completion,
    CompletionRequest,
    CompletionService,
    CompletionStream,
    Delta,
)

router = APIRouter(route_class=JsonRoute, tags=["OpenAI"])

EXAMPLE_STREAM = (
    'data: {"id":"cmpl-…","object":"text_completion","created":1795000000,"model":"…",'
    '"system_fingerprint":"fp_…","choices":[{"index":0,"text":" there","logprobs":null,'
    '"finish_reason":null}]}\n\ndata: [DONE]\n\n'
)


@router.post(
    "/v1/completions",
    summary="Continue prompts",
    response_model=TextCompletion,
    responses=MODEL_ERRORS
    | {
        200: {
            "description": "The continuations; with `stream`, as events.",
            "content": {"text/event-stream": {"example": EXAMPLE_STREAM}},
        }
    },
)
async def create_completion(
    body: Annotated[CompletionsRequest, Body(openapi_examples=examples.COMPLETIONS)],
    state: StateDependency,
    request_id: RequestIdDependency,
    cache_salt: CacheSaltDependency,
) -> Response:
    """Continues each prompt n times. Parameters that cannot be honoured are refused by name."""
    service, identity = state.require(body.model)
    prompts = split_prompts(body.prompt)
    state.check_num_choices(len(prompts), given(body.n, 1))
    requests = [to_completion_request(body, prompt, request_id, cache_salt) for prompt in prompts]
    head: dict[str, object] = {
        "id": f"cmpl-{uuid.uuid4().hex}",
        "object": "text_completion",
        "created": int(time.time()),
        "model": body.model,
        "system_fingerprint": identity.fingerprint,
    }
    echoes = [await echo_of(service, prompt) if body.echo else None for prompt in prompts]
    if body.stream:
        return await start_stream(service, requests, TextRenderer(body, head, echoes))
    completions = await complete_all(service, requests)
    answer = head | {
        "choices": [
            _choice(body, choice, number, completion.prompt_choices or (), echo)
            for number, (completion, echo) in enumerate(zip(completions, echoes, strict=True))
            for choice in completion.choices
        ],
        "usage": openai_usage_dict(add_usage(completion.usage for completion in completions)),
    }
    return Response(json_bytes(answer), media_type="application/json")


def to_completion_request(
    body: CompletionsRequest, prompt: str | tuple[int, ...], request_id: str, cache_salt: bytes
) -> CompletionRequest:
    return CompletionRequest(
        request_id=request_id,
        cache_salt=cache_salt,
        prompt=prompt,
        max_new_tokens=given(body.max_tokens, DEFAULT_NEW_TOKENS),
        num_logprobs=body.logprobs,
        num_prompt_logprobs=body.logprobs if body.echo else None,
        **body.common(),
    )


async def complete_all(
    service: CompletionService, requests: Sequence[CompletionRequest]
) -> list[Completion]:
    """All of them side by side; the first that fails ends the others."""
    tasks = [asyncio.create_task(service.complete(request)) for request in requests]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _choice(
    body: CompletionsRequest,
    choice: Choice,
    prompt_number: int,
    prompt_tokens: PromptTokens,
    echo: Echo | None,
) -> dict[str, object]:
    return {
        "index": prompt_number * given(body.n, 1) + choice.index,
        "text": (echo.text if echo is not None else "") + choice.text,
        "logprobs": None if body.logprobs is None else _logprobs(choice, prompt_tokens, echo),
        "finish_reason": choice.finish_reason,
    }


def _logprobs(choice: Choice, prompt_tokens: PromptTokens, echo: Echo | None) -> TextLogprobsDict:
    """Of the prompt, with echo, and of the answer."""
    start = 0 if echo is None else len(echo.text)
    offsets = TextOffsets(start).place(token_bytes(choice.tokens), choice.text)
    logprobs = text_logprobs(choice.tokens, offsets)
    if echo is None:
        return logprobs
    before = echo_logprobs(echo, prompt_tokens)
    return {name: [*before[name], *values] for name, values in logprobs.items()}


class TextRenderer:
    """Writes chunks around parts that are the same in all of them, so that a token costs little."""

    def __init__(
        self,
        body: CompletionsRequest,
        head: Mapping[str, object],
        echoes: Sequence[Echo | None],
    ) -> None:
        self._body = body
        self._before = b"data: " + json_bytes(head)[:-1] + b',"choices":['
        self._after = b',"usage":null}\n\n' if body.includes_usage else b"}\n\n"
        self._echoes = echoes
        self._streams: Sequence[CompletionStream] = ()
        self._offsets: dict[int, TextOffsets] = {}

    def begin(self, streams: Sequence[CompletionStream]) -> Iterator[bytes]:
        self._streams = streams
        return iter(())

    def render(self, delta: Delta, stream_number: int) -> Iterator[bytes]:
        index = stream_number * given(self._body.n, 1) + delta.index
        if index not in self._offsets:
            echo = self._echoes[stream_number]
            self._offsets[index] = TextOffsets(0 if echo is None else len(echo.text))
            if echo is not None:
                tokens = self._streams[stream_number].prompt_choices or ()
                yield self._chunk(index, echo.text, echo_logprobs(echo, tokens) if tokens else None)
        if delta.text or delta.tokens or delta.finish_reason:
            offsets = self._offsets[index].place(token_bytes(delta.tokens), delta.text)
            logprobs = text_logprobs(delta.tokens, offsets) if delta.tokens else None
            yield self._chunk(index, delta.text, logprobs, delta.finish_reason)

    def end(self, streams: Sequence[CompletionStream]) -> Iterator[bytes]:
        if self._body.includes_usage:
            usage = openai_usage_dict(add_usage(stream.usage for stream in streams))
            yield self._before + b'],"usage":' + json_bytes(usage) + b"}\n\n"
        yield DONE

    def _chunk(
        self,
        index: int,
        text: str,
        logprobs: Mapping[str, object] | None,
        finish: str | None = None,
    ) -> bytes:
        reason = b"null" if finish is None else b'"' + finish.encode() + b'"'
        choice = b'{"index":%d,"text":%b,"logprobs":%b,"finish_reason":%b}]'
        written = b"null" if logprobs is None else json_bytes(logprobs)
        return self._before + choice % (index, json_bytes(text), written, reason) + self._after
