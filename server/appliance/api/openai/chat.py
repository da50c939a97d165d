"""POST /v1/chat/completions: messages in, the assistant's next message out."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from appliance.api.http.answer import answer
from appliance.api.http.request import Request
from appliance.api.http.response import Response, json_bytes
from appliance.api.http.route import MODEL_ERRORS, Route
from appliance.api.http.sse import DONE
from appliance.api.openai.chat_answer import ChatCompletion
from appliance.api.openai.chat_schema import (
    ChatRequest,
    JsonObjectFormat,
    JsonSchemaFormat,
    NamedTool,
    ResponseFormat,
    ToolSpec,
)
from appliance.api.openai.logprobs import chat_logprobs
from appliance.api.openai.shared import answer_head
from appliance.api.schema import examples
from appliance.api.schema.messages import template_messages
from appliance.api.schema.repeat import ids_member
from appliance.api.schema.usage import openai_usage_dict
from appliance.completion import (
    ChatPrompt,
    Choice,
    Completion,
    CompletionRequest,
    Delta,
    OutputFormat,
    Stream,
    Tool,
    ToolCall,
    ToolChoice,
    given,
)

EXAMPLE_STREAM = (
    'data: {"id":"chatcmpl-…","object":"chat.completion.chunk","created":1795000000,"model":"…",'
    '"system_fingerprint":"fp_…","choices":[{"index":0,"delta":{"content":"Hello"},'
    '"logprobs":null,"finish_reason":null}]}\n\ndata: [DONE]\n\n'
)


async def create_chat_completion(body: ChatRequest, request: Request) -> Response:
    """The assistant's next message. Parameters that cannot be honoured are refused by name."""
    served = await request.find(body.model)
    served.check_num_choices(1, given(body.n, 1))
    completion = await asyncio.to_thread(to_completion_request, body, request)
    head = answer_head("chatcmpl", "chat.completion", served.identity)
    face = ChatFace(body, head, completion.seed)
    return await answer(request, served, [completion], face, streams=body.stream)


CHAT = Route(
    method="POST",
    path="/v1/chat/completions",
    endpoint=create_chat_completion,
    body=ChatRequest,
    words={"prompt": "messages", "max_new_tokens": "max_completion_tokens"},
    tags=("OpenAI",),
    summary="Answer a conversation",
    response_model=ChatCompletion,
    responses={
        **MODEL_ERRORS,
        200: {
            "description": "The answer; with `stream`, as events.",
            "content": {"text/event-stream": {"example": EXAMPLE_STREAM}},
        },
    },
    examples=examples.CHAT,
)


def to_completion_request(body: ChatRequest, request: Request) -> CompletionRequest:
    return CompletionRequest(
        **request.asking(),
        prompt=ChatPrompt(
            messages=template_messages(body.messages),
            tools=tuple(_tool(tool) for tool in body.tools or ()),
            tool_choice=_tool_choice(body),
        ),
        max_new_tokens=body.max_completion_tokens or body.max_tokens,
        num_logprobs=(body.top_logprobs or 0) if body.logprobs else None,
        output=_output_format(body.response_format),
        **body.common(),
    )


def _tool(spec: ToolSpec) -> Tool:
    function = spec.function
    return Tool(
        name=function.name,
        description=function.description or "",
        parameters=function.parameters or {"type": "object", "properties": {}},
    )


def _tool_choice(body: ChatRequest) -> ToolChoice:
    if isinstance(body.tool_choice, NamedTool):
        return ToolChoice(kind="named", name=body.tool_choice.function.name)
    return ToolChoice(kind=body.tool_choice or "auto")


def _output_format(response_format: ResponseFormat | None) -> OutputFormat:
    if isinstance(response_format, JsonSchemaFormat):
        return OutputFormat(kind="json_schema", schema=response_format.json_schema.schema_)
    if isinstance(response_format, JsonObjectFormat):
        return OutputFormat(kind="json_object")
    return OutputFormat()


def _choice(body: ChatRequest, choice: Choice) -> dict[str, object]:
    calls = choice.tool_calls if body.parallel_tool_calls is not False else choice.tool_calls[:1]
    message: dict[str, object] = {
        "role": "assistant",
        "content": None if calls and not choice.text else choice.text,
        "refusal": None,
    }
    if calls:
        message["tool_calls"] = [_call(call) for call in calls]
    return {
        "index": choice.index,
        "message": message,
        "logprobs": chat_logprobs(choice.tokens) if body.logprobs else None,
        "finish_reason": choice.finish_reason,
        **({"token_ids": choice.token_ids} if body.return_token_ids else {}),
    }


def _call(call: ToolCall) -> dict[str, object]:
    return {
        "id": call.call_id,
        "type": "function",
        "function": {"name": call.name, "arguments": call.arguments},
    }


class ChatFace:
    """Writes chunks around parts that are the same in all of them, so that a token costs little."""

    def __init__(self, body: ChatRequest, head: Mapping[str, object], seed: int) -> None:
        chunk_head = {**head, "object": "chat.completion.chunk"}
        self._body = body
        self._head = head
        self._before = b"data: " + json_bytes(chunk_head)[:-1] + b',"choices":['
        self._seed = seed
        self._after = b',"usage":null}\n\n' if body.includes_usage else b"}\n\n"
        self._after_last = b',"seed":%d%b' % (seed, self._after)  # ends a choice
        self._num_calls: Counter[int] = Counter()

    def whole(self, completions: Sequence[Completion]) -> object:
        [completion] = completions
        return {
            **self._head,
            "choices": [_choice(self._body, choice) for choice in completion.choices],
            "usage": openai_usage_dict(completion.usage),
            "seed": self._seed,
            **({"prompt_token_ids": completion.prompt_ids} if self._body.return_token_ids else {}),
        }

    def begin(self, streams: Sequence[Stream]) -> bytes:
        first = b'{"role":"assistant","content":"","refusal":null}'
        chunks = [self._chunk(index, first) for index in range(self._body.n or 1)]
        if self._body.return_token_ids:
            ids = ids_member(b"prompt_token_ids", streams[0].prompt_ids)
            chunks[0] = chunks[0].removesuffix(b"}\n\n") + ids + b"}\n\n"
        return b"".join(chunks)

    def render(self, delta: Delta, _: int) -> bytes:
        return b"".join(self._call_chunks(delta)) if delta.tool_calls else self._text_chunk(delta)

    def _call_chunks(self, delta: Delta) -> Iterator[bytes]:
        for call in delta.tool_calls:
            number = self._num_calls[delta.index]
            if number and self._body.parallel_tool_calls is False:
                break
            self._num_calls[delta.index] += 1
            yield self._chunk(
                delta.index, json_bytes({"tool_calls": [{"index": number, **_call(call)}]})
            )
        yield self._text_chunk(delta)

    def _text_chunk(self, delta: Delta) -> bytes:
        if not (delta.text or delta.tokens or delta.token_ids or delta.finish_reason):
            return b""
        content = b'{"content":%b}' % json_bytes(delta.text) if delta.text else b"{}"
        logprobs = json_bytes(chat_logprobs(delta.tokens)) if delta.tokens else b"null"
        if delta.token_ids:
            logprobs += ids_member(b"token_ids", delta.token_ids)
        return self._chunk(delta.index, content, logprobs, delta.finish_reason)

    def end(self, streams: Sequence[Stream]) -> bytes:
        if not self._body.includes_usage:
            return DONE
        usage = json_bytes(openai_usage_dict(streams[0].usage))
        return self._before + b'],"usage":%b,"seed":%d}\n\n' % (usage, self._seed) + DONE

    def _chunk(
        self, index: int, delta: bytes, logprobs: bytes = b"null", finish: str | None = None
    ) -> bytes:
        """Write one choice; `logprobs` may bring further members along."""
        if finish is None:
            choice = b'{"index":%d,"delta":%b,"logprobs":%b,"finish_reason":null}]'
            return self._before + choice % (index, delta, logprobs) + self._after
        choice = b'{"index":%d,"delta":%b,"logprobs":%b,"finish_reason":"%b"}]'
        return self._before + choice % (index, delta, logprobs, finish.encode()) + self._after_last
