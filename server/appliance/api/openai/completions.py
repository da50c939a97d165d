"""POST /v1/completions: prompts in, their continuations out."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from appliance.api.http.answer import answer
from appliance.api.http.request import Request
from appliance.api.http.response import Response, json_bytes
from appliance.api.http.route import MODEL_ERRORS, Route
from appliance.api.http.sse import DONE
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
from appliance.api.openai.shared import answer_head
from appliance.api.schema import examples
from appliance.api.schema.prompts import split_prompts
from appliance.api.schema.repeat import ids_member
from appliance.api.schema.usage import add_usage, openai_usage_dict
from appliance.completion import (
    Choice,
    Completion,
    CompletionRequest,
    Delta,
    Stream,
    given,
)

EXAMPLE_STREAM = (
    'data: {"id":"cmpl-…","object":"text_completion","created":1795000000,"model":"…",'
    '"system_fingerprint":"fp_…","choices":[{"index":0,"text":" there","logprobs":null,'
    '"finish_reason":null}]}\n\ndata: [DONE]\n\n'
)


async def create_completion(body: CompletionsRequest, request: Request) -> Response:
    """Continues each prompt n times. Parameters that cannot be honoured are refused by name."""
    served = await request.find(body.model)
    prompts = split_prompts(body.prompt)
    served.check_num_choices(len(prompts), given(body.n, 1))
    first = to_completion_request(body, prompts[0], request)
    requests = [dataclasses.replace(first, prompt=prompt) for prompt in prompts]  # one seed
    head = answer_head("cmpl", "text_completion", served.identity)
    echoes = [
        await echo_of(served.completions, prompt) if body.echo else None for prompt in prompts
    ]
    face = TextFace(body, head, echoes, first.seed)
    return await answer(request, served, requests, face, streams=body.stream)


COMPLETIONS = Route(
    method="POST",
    path="/v1/completions",
    endpoint=create_completion,
    body=CompletionsRequest,
    words={"max_new_tokens": "max_tokens"},
    tags=("OpenAI",),
    summary="Continue prompts",
    response_model=TextCompletion,
    responses={
        **MODEL_ERRORS,
        200: {
            "description": "The continuations; with `stream`, as events.",
            "content": {"text/event-stream": {"example": EXAMPLE_STREAM}},
        },
    },
    examples=examples.COMPLETIONS,
)


def to_completion_request(
    body: CompletionsRequest, prompt: str | tuple[int, ...], request: Request
) -> CompletionRequest:
    return CompletionRequest(
        **request.asking(),
        prompt=prompt,
        max_new_tokens=given(body.max_tokens, DEFAULT_NEW_TOKENS),
        num_logprobs=body.logprobs,
        num_prompt_logprobs=body.logprobs if body.echo else None,
        **body.common(),
    )


def _choice(
    body: CompletionsRequest,
    choice: Choice,
    prompt_number: int,
    completion: Completion,
    echo: Echo | None,
) -> dict[str, object]:
    prompt_tokens = completion.prompt_choices or ()
    written: dict[str, object] = {
        "index": prompt_number * given(body.n, 1) + choice.index,
        "text": (echo.text if echo is not None else "") + choice.text,
        "logprobs": None if body.logprobs is None else _logprobs(choice, prompt_tokens, echo),
        "finish_reason": choice.finish_reason,
    }
    if body.return_token_ids:
        written |= {"prompt_token_ids": completion.prompt_ids, "token_ids": choice.token_ids}
    return written


def _logprobs(choice: Choice, prompt_tokens: PromptTokens, echo: Echo | None) -> TextLogprobsDict:
    """Of the prompt, with echo, and of the answer."""
    start = 0 if echo is None else len(echo.text)
    offsets = TextOffsets(start).place(token_bytes(choice.tokens), choice.text)
    logprobs = text_logprobs(choice.tokens, offsets)
    if echo is None:
        return logprobs
    before = echo_logprobs(echo, prompt_tokens)
    return {name: [*before[name], *values] for name, values in logprobs.items()}


class TextFace:
    """Writes chunks around parts that are the same in all of them, so that a token costs little."""

    def __init__(
        self,
        body: CompletionsRequest,
        head: Mapping[str, object],
        echoes: Sequence[Echo | None],
        seed: int,
    ) -> None:
        self._body = body
        self._head = head
        self._before = b"data: " + json_bytes(head)[:-1] + b',"choices":['
        self._seed = seed
        self._after = b',"usage":null}\n\n' if body.includes_usage else b"}\n\n"
        self._after_last = b',"seed":%d%b' % (seed, self._after)  # ends a choice
        self._num_choices = given(body.n, 1)
        self._echoes = echoes
        self._streams: Sequence[Stream] = ()
        self._offsets: dict[int, TextOffsets] = {}

    def whole(self, completions: Sequence[Completion]) -> object:
        return {
            **self._head,
            "choices": [
                _choice(self._body, choice, number, completion, echo)
                for number, (completion, echo) in enumerate(
                    zip(completions, self._echoes, strict=True)
                )
                for choice in completion.choices
            ],
            "usage": openai_usage_dict(add_usage(completion.usage for completion in completions)),
            "seed": self._seed,
        }

    def begin(self, streams: Sequence[Stream]) -> bytes:
        self._streams = streams
        return b""

    def render(self, delta: Delta, stream_number: int) -> bytes:
        index = stream_number * self._num_choices + delta.index
        before = b"" if index in self._offsets else self._begin_choice(index, stream_number)
        if not (delta.text or delta.tokens or delta.token_ids or delta.finish_reason):
            return before
        logprobs = None
        if self._body.logprobs is not None:
            offsets = self._offsets[index].place(token_bytes(delta.tokens), delta.text)
            logprobs = text_logprobs(delta.tokens, offsets) if delta.tokens else None
        ids = ids_member(b"token_ids", delta.token_ids) if delta.token_ids else b""
        return before + self._chunk(index, delta.text, logprobs, delta.finish_reason, ids)

    def _begin_choice(self, index: int, stream_number: int) -> bytes:
        echo = self._echoes[stream_number]
        self._offsets[index] = TextOffsets(0 if echo is None else len(echo.text))
        stream = self._streams[stream_number]
        ids = b""
        if self._body.return_token_ids:
            ids = ids_member(b"prompt_token_ids", stream.prompt_ids)
        if echo is None:
            return self._chunk(index, "", None, ids=ids) if ids else b""
        tokens = stream.prompt_choices or ()
        logprobs = echo_logprobs(echo, tokens) if tokens else None
        return self._chunk(index, echo.text, logprobs, ids=ids)

    def end(self, streams: Sequence[Stream]) -> bytes:
        if not self._body.includes_usage:
            return DONE
        usage = openai_usage_dict(add_usage(stream.usage for stream in streams))
        after = b'],"usage":%b,"seed":%d}\n\n' % (json_bytes(usage), self._seed)
        return self._before + after + DONE

    def _chunk(
        self,
        index: int,
        text: str,
        logprobs: Mapping[str, object] | None,
        finish: str | None = None,
        ids: bytes = b"",
    ) -> bytes:
        written = (b"null" if logprobs is None else json_bytes(logprobs)) + ids
        if finish is None:
            choice = b'{"index":%d,"text":%b,"logprobs":%b,"finish_reason":null}]'
            return self._before + choice % (index, json_bytes(text), written) + self._after
        choice = b'{"index":%d,"text":%b,"logprobs":%b,"finish_reason":"%b"}]'
        end = choice % (index, json_bytes(text), written, finish.encode())
        return self._before + end + self._after_last
