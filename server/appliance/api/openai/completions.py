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
from appliance.api.openai.echo import Echo, PromptTokens, echo_of
from appliance.api.openai.logprobs import text_logprobs
from appliance.api.openai.prompts import split_prompts
from appliance.api.route import MODEL_ERRORS, JsonRoute, RequestIdDependency, StateDependency
from appliance.api.sse import DONE, json_bytes, start_stream
from appliance.api.usage import add_usage, usage_dict
from appliance.completion import (
    Choice,
    Completion,
    CompletionRequest,
    CompletionService,
    CompletionStream,
    Delta,
    TokenChoice,
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
) -> Response:
    """Continues each prompt n times. Parameters that cannot be honoured are refused by name."""
    service, identity = state.require(body.model)
    prompts = split_prompts(body.prompt)
    requests = [to_completion_request(body, prompt, request_id) for prompt in prompts]
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
        "usage": usage_dict(add_usage(completion.usage for completion in completions)),
    }
    return Response(json_bytes(answer), media_type="application/json")


def to_completion_request(
    body: CompletionsRequest, prompt: str | tuple[int, ...], request_id: str
) -> CompletionRequest:
    return CompletionRequest(
        request_id=request_id,
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
    tokens = [*prompt_tokens, *choice.tokens]
    unseen_text = echo.unseen_text(prompt_tokens) if echo is not None else ""
    return {
        "index": prompt_number * given(body.n, 1) + choice.index,
        "text": (echo.text if echo is not None else "") + choice.text,
        "logprobs": text_logprobs(tokens, 0, unseen_text) if body.logprobs is not None else None,
        "finish_reason": choice.finish_reason,
    }


class TextRenderer:
    """Writes chunks around parts that are the same in all of them, so that a token costs little.

    Deltas come prompt by prompt; a prompt's number is counted by its finished choices.
    """

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
        self._num_choices = given(body.n, 1)
        self._num_finished = 0
        self._offsets: dict[int, int] = {}

    def begin(self, streams: Sequence[CompletionStream]) -> Iterator[bytes]:
        self._streams = streams
        return iter(())

    def render(self, delta: Delta) -> Iterator[bytes]:
        prompt_number = self._num_finished // self._num_choices
        index = prompt_number * self._num_choices + delta.index
        if index not in self._offsets:
            self._offsets[index] = 0
            echo = self._echoes[prompt_number]
            if echo is not None:
                tokens = self._streams[prompt_number].prompt_choices or ()
                yield self._chunk(index, echo.text, tokens, None, echo.unseen_text(tokens))
        self._num_finished += delta.finish_reason is not None
        if delta.text or delta.tokens or delta.finish_reason:
            yield self._chunk(index, delta.text, delta.tokens, delta.finish_reason)

    def end(self, streams: Sequence[CompletionStream]) -> Iterator[bytes]:
        if self._body.includes_usage:
            usage = usage_dict(add_usage(stream.usage for stream in streams))
            yield self._before + b'],"usage":' + json_bytes(usage) + b"}\n\n"
        yield DONE

    def _chunk(
        self,
        index: int,
        text: str,
        tokens: Sequence[TokenChoice | None],
        finish: str | None,
        unseen_text: str = "",
    ) -> bytes:
        reason = b"null" if finish is None else b'"' + finish.encode() + b'"'
        logprobs = b"null"
        if tokens:
            logprobs = json_bytes(text_logprobs(tokens, self._offsets[index], unseen_text))
            texts = (unseen_text if token is None else token.text for token in tokens)
            self._offsets[index] += sum(map(len, texts))
        choice = b'{"index":%d,"text":%b,"logprobs":%b,"finish_reason":%b}]'
        return self._before + choice % (index, json_bytes(text), logprobs, reason) + self._after
