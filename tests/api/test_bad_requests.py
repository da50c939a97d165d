"""What we refuse: each bad request has its own clear error, and the server serves on."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest

from tests.api.conftest import MODEL, FakeServer

MAX_ERROR_BYTES = 8 * 1024

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"
EMBED = "/v1/embeddings"
USER: Any = [{"role": "user", "content": "Hi"}]
TOOL: Any = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
NESTED: Any = json.loads('{"a":' * 70 + "1" + "}" * 70)


@dataclass(frozen=True)
class Bad:
    """A request, and what its error must say."""

    path: str
    body: Any
    param: str | None
    message: str
    code: str = "invalid_value"
    status: int = 400


def chat(param: str | None, message: str, code: str = "invalid_value", **fields: object) -> Bad:
    return Bad(CHAT, {"model": MODEL, "messages": USER, **fields}, param, message, code)


def text(param: str | None, message: str, code: str = "invalid_value", **fields: object) -> Bad:
    return Bad(TEXT, {"model": MODEL, "prompt": "Hi", **fields}, param, message, code)


def embed(param: str | None, message: str, code: str = "invalid_value", **fields: object) -> Bad:
    return Bad(EMBED, {"model": MODEL, "input": "Hi", **fields}, param, message, code)


def generate(param: str | None, message: str, code: str = "invalid_value", **fields: object) -> Bad:
    return Bad("/generate", {"prompt": "Hi", **fields}, param, message, code)


def raw(body: bytes, message: str) -> Bad:
    return Bad("/generate", body, None, message, "invalid_json")


def message(param: str, text: str, code: str = "invalid_value", **fields: object) -> Bad:
    return chat(param, text, code, messages=[{"role": "user", "content": "Hi"}, fields])


UNSUPPORTED = "unsupported_parameter"
TYPE = "invalid_type"
MISSING = "missing_required_parameter"

BAD_JSON = [
    raw(b"", "it is empty"),
    raw(b" \n ", "it is empty"),
    raw(b"{", "line 1 column 2"),
    raw(b'{"prompt": "Hi",}', "line 1 column"),
    raw(b"prompt=Hi", "line 1 column 1"),
    raw(b'{"prompt": "Hi"} x', "Extra data"),
    raw(b'{"prompt": "\xff"}', "it is not UTF-8 text"),
    raw('{"prompt": "Hi"}'.encode("utf-16"), "it is not UTF-8 text"),
    raw(b'\xef\xbb\xbf{"prompt": "Hi"}', "BOM"),
    raw(b'{"prompt": "Hi", "temperature": NaN}', "NaN is not a JSON number"),
    raw(b'{"prompt": "Hi", "temperature": Infinity}', "Infinity is not a JSON number"),
    raw(b'{"prompt": "Hi", "temperature": -Infinity}', "-Infinity is not a JSON number"),
    raw(b'{"prompt": "Hi", "temperature": 1e999}', "a number is too large"),
    raw(b'{"prompt": "Hi", "seed": 9223372036854775808}', "does not fit in 64 bits"),
    raw(b'{"prompt": "Hi", "seed": -9223372036854775809}', "does not fit in 64 bits"),
    raw(b'{"prompt": "Hi", "seed": ' + b"9" * 5000 + b"}", "does not fit in 64 bits"),
    raw(b'{"prompt": "Hi", "prompt": "Ho"}', "the same key twice"),
    raw(b'{"prompt": "\\ud800"}', "surrogate"),
    raw(b'{"\\udfff": "Hi"}', "surrogate"),
    raw(b'{"prompt": "a\\u0000b"}', "NUL"),
    raw(b'{"prompt": "a\x00b"}', "Invalid control character"),
    raw(b'{"prompt": ' + b"[" * 5000 + b"]" * 5000 + b"}", "nested deeper than 64"),
    raw(b"[" * 40_000, "nested deeper than 64"),
    raw(b"[" * 60_000, "more than 50000 lists and objects"),
    raw(b'{"prompt": [' + b"[]," * 60_000 + b"[]]}", "more than 50000 lists and objects"),
    raw(b'{"a": [' + b'"[",' * 30_000 + b"{}," * 25_000 + b"[]]", "line 1 column"),
    raw(b'{"prompt": ' + b'{"a":' * 65 + b"1" + b"}" * 66, "nested deeper than 64"),
    raw(b"{" + b",".join(b'"k%d":1' % n for n in range(5000)) + b"}", "more than 4096 keys"),
]

BAD_SHAPES = [
    Bad("/generate", [], None, "The body is a list; it must be an object.", TYPE),
    Bad("/generate", "Hi", None, "The body is a string; it must be an object.", TYPE),
    Bad("/generate", None, None, "it must be an object", TYPE),
    Bad("/generate", {}, "prompt", "`prompt` is required.", MISSING),
    generate("prompt", "`prompt` is 7; it must be a string.", TYPE, prompt=7),
    generate("prompt", "`prompt` is null; it must be a string.", TYPE, prompt=None),
    generate(
        "max_length", "`max_length` is true; it must be a whole number.", TYPE, max_length=True
    ),
    generate("max_length", "`max_length` is 20.0; it must be a", TYPE, max_length=20.0),
    generate("max_length", "`max_length` is a string", TYPE, max_length="20"),
    generate("max_length", "`max_length` is 0; it must be at least 1.", max_length=0),
    generate("max_new_tokens", "it must be at most 2147483647", max_new_tokens=2**62),
    generate("temperature", "`temperature` is -0.1; it must be at least 0.", temperature=-0.1),
    generate("temperature", "`temperature` is true; it must be a number", TYPE, temperature=True),
    generate("top_p", "`top_p` is 0; it must be more than 0.", top_p=0),
    generate("top_p", "it must be at most 1", top_p=1.01),
    generate("top_k", "`top_k` is -2; it must be at least -1.", top_k=-2),
    generate("min_p", "it must be at most 1", min_p=2),
    generate("repetition_penalty", "it must be at least 0.01", repetition_penalty=0),
    generate("stop", "must be a string or a list of strings", stop=3),
    generate("stop[1]", "`stop[1]` is null; it must be a string.", TYPE, stop=["a", None]),
    generate("stop", "`stop` must have at most 4 entries.", stop=["a", "b", "c", "d", "e"]),
    generate("stop", "`stop` must not be empty.", stop=""),
    generate("stop", "must have at most 256 characters", stop="a" * 257),
    generate("stream", "`stream` is 1; it must be true or false.", TYPE, stream=1),
    generate("do_sample", "use temperature 0. Accepted: true.", UNSUPPORTED, do_sample=False),
    generate("do_samples", "`do_samples` is not a parameter", UNSUPPORTED, do_samples=True),
    generate("*", "`*` is not a parameter", UNSUPPORTED, **{"<script>": 1}),
]

BAD_CHATS = [
    Bad(CHAT, {"messages": USER}, "model", "`model` is required.", MISSING),
    Bad(CHAT, {"model": MODEL}, "messages", "`messages` is required.", MISSING),
    chat("model", "only tiny-llama", "model_not_found", model="gpt-9"),
    chat("model", "`model` must not be empty.", model=""),
    chat("messages", "it must be a list", TYPE, messages="Hi"),
    chat("messages", "must not be empty", messages=[]),
    chat("messages[0]", "it must be an object", TYPE, messages=["Hi"]),
    chat("messages[0].role", "is required", MISSING, messages=[{"content": "Hi"}]),
    message("messages[1].role", "must be 'system', 'developer'", role="robot", content="Hi"),
    message("messages[1]", "has no content", role="user"),
    message("messages[1].content", "must be a string or a list of text parts",
            role="user", content=5),
    message("messages[1].content", "must not be empty", role="user", content=[]),
    message("messages[1].content[0]", "is image_url; this model reads text only",
            UNSUPPORTED, role="user", content=[{"type": "image_url", "image_url": {"url": "x"}}]),
    message("messages[1].content[0]", "is input_audio", UNSUPPORTED,
            role="user", content=[{"type": "input_audio", "input_audio": {}}]),
    message("messages[1]", "has tool_calls", role="user", content="a", tool_calls=[
        {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]),
    message("messages[1]", "must have tool_call_id", role="tool", content="a"),
    message("messages[1].tool_calls[0].function.arguments", "must be a JSON object",
            role="assistant", tool_calls=[{"id": "1", "type": "function",
                         "function": {"name": "f", "arguments": "[1]"}}]),
    message("messages[1].audio", "is not supported with this value", UNSUPPORTED,
            role="assistant", content="a", audio={"id": "1"}),
    message("messages[1].name", "has characters that are not allowed",
            role="user", content="a", name="a b"),
    chat("n", "`n` is 9; it must be at most 8.", n=9),
    chat("n", "at least 1", n=0),
    chat("max_tokens", "at least 1", max_tokens=0),
    chat("max_tokens", "`max_tokens` and `max_completion_tokens` differ",
         max_tokens=5, max_completion_tokens=6),
    chat("presence_penalty", "at most 2", presence_penalty=2.5),
    chat("frequency_penalty", "at least -2", frequency_penalty=-3),
    chat("logit_bias", "a key that is no token id", logit_bias={"cat": 1}),
    chat("logit_bias.7", "`logit_bias.7` is 101; it must be at most 100.", logit_bias={"7": 101}),
    chat("logit_bias", "must be an object", TYPE, logit_bias=[1]),
    chat("logprobs", "it must be true or false", TYPE, logprobs=3),
    chat("top_logprobs", "at most 20", logprobs=True, top_logprobs=21),
    chat("top_logprobs", "needs logprobs to be true", top_logprobs=2),
    chat("stream_options", "only for streams", stream_options={"include_usage": True}),
    chat("stream_options.include_obfuscation", "no padding", UNSUPPORTED,
         stream=True, stream_options={"include_obfuscation": True}),
    chat("response_format", "text, json_object or json_schema", response_format={"type": "xml"}),
    chat("response_format", "must be an object whose type", response_format={}),
    chat("response_format.json_schema", "is required", MISSING,
         response_format={"type": "json_schema"}),
    chat("response_format.json_schema.schema", "is required", MISSING,
         response_format={"type": "json_schema", "json_schema": {"name": "a"}}),
    chat(None, "nested deeper than 64", "invalid_json",
         response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": NESTED}}),
    chat("tools[0].type", "must be 'function'", tools=[{**TOOL, "type": "custom"}]),
    chat("tools[0].function.name", "not allowed", tools=[
        {"type": "function", "function": {"name": "a b"}}]),
    chat("tools", "two functions of the same name", tools=[TOOL, TOOL]),
    chat("tool_choice", "there are no tools", tool_choice="required"),
    chat("tool_choice", "must be 'auto', 'none' or 'required'", tool_choice="any", tools=[TOOL]),
    chat("tool_choice", "must be auto, none, required or an object", tool_choice=1, tools=[TOOL]),
    chat("tool_choice", "not in tools", tools=[TOOL],
         tool_choice={"type": "function", "function": {"name": "g"}}),
    chat("response_format", "send one", tools=[TOOL], tool_choice="required",
         response_format={"type": "json_object"}),
    chat("store", "answers are never stored", UNSUPPORTED, store=True),
    chat("service_tier", "there is one tier", UNSUPPORTED, service_tier="flex"),
    chat("modalities", "writes text only", UNSUPPORTED, modalities=["text", "audio"]),
    chat("metadata.a", "it must be a string", TYPE, metadata={"a": 1}),
    chat("functions", "use tools", UNSUPPORTED, functions=[{"name": "f"}]),
    chat("function_call", "use tool_choice", UNSUPPORTED, function_call="auto"),
    chat("audio", "writes text only", UNSUPPORTED, audio={"voice": "a"}),
    chat("reasoning_effort", "no reasoning mode", UNSUPPORTED, reasoning_effort="low"),
    chat("web_search_options", "reaches no network", UNSUPPORTED, web_search_options={}),
    chat("prediction", "not predicted", UNSUPPORTED, prediction={"type": "content"}),
    chat("chat_template", "part of the model", UNSUPPORTED, chat_template="{{ 1 }}"),
    chat("best_of", "ask for n answers", UNSUPPORTED, best_of=2),
    chat("thinking", "is not a parameter", UNSUPPORTED, thinking=True),
]  # fmt: skip

BAD_COMPLETIONS = [
    Bad(TEXT, {"model": MODEL}, "prompt", "`prompt` is required.", MISSING),
    text("prompt", "and not empty", prompt=[]),
    text("prompt", "must be a string, a list of strings", prompt={"a": 1}),
    text("prompt", "must be a string, a list of strings", prompt=[None]),
    text("prompt[1]", "it must be a string", TYPE, prompt=["a", 1]),
    text("prompt[1]", "it must be a whole number", TYPE, prompt=[1, "a"]),
    text("prompt[0]", "`prompt[0]` is -1; it must be at least 0.", prompt=[-1]),
    text("prompt[0]", "must not be empty", prompt=[[]]),
    text("prompt", "at most 64 entries", prompt=["a"] * 65),
    text("n", "at most 128", prompt=["a"] * 64, n=3),
    text("prompt", "`prompt` has 1025 tokens; the model's context holds 1024.",
         "context_length_exceeded", prompt=[1] * 1025),
    text("prompt", "has 1025 tokens", "context_length_exceeded", prompt=[[1], [1] * 1025]),
    text("max_tokens", "without echo", max_tokens=0),
    text("max_tokens", "at least 0", max_tokens=-1),
    text("logprobs", "it must be a whole number", TYPE, logprobs=True),
    text("logprobs", "at most 20", logprobs=99),
    text("echo", "it must be true or false", TYPE, echo="yes"),
    text("best_of", "ask for n answers", UNSUPPORTED, best_of=2),
    text("suffix", "does not fill gaps", UNSUPPORTED, suffix="!"),
    text("messages", "use /v1/chat/completions", UNSUPPORTED, messages=USER),
    text("tools", "/v1/chat/completions", UNSUPPORTED, tools=[TOOL]),
    text("guided_json", "response_format", UNSUPPORTED, guided_json={}),
    text("prompt_embeds", "send text or token ids", UNSUPPORTED, prompt_embeds="AAAA"),
]  # fmt: skip

BAD_OTHERS = [
    embed("input", "and not empty", input=[]),
    embed("input", "has 1025 tokens", "context_length_exceeded", input=[1] * 1025),
    Bad("/detokenize", {"tokens": [1] * 1025}, "tokens", "`tokens` has 1025 tokens",
        "context_length_exceeded"),
    Bad(EMBED, {"model": MODEL}, "input", "`input` is required.", MISSING),
    embed("encoding_format", "must be 'float' or 'base64'", encoding_format="int8"),
    embed("dimensions", "as many dimensions as", UNSUPPORTED, dimensions=8),
    Bad("/tokenize", {}, "prompt", "either `prompt` or `messages`"),
    Bad("/tokenize", {"prompt": "a", "messages": USER}, "prompt", "either `prompt` or `messages`"),
    Bad("/tokenize", {"prompt": "a", "model": "b"}, "model", "only tiny-llama", "model_not_found"),
    Bad("/detokenize", {"tokens": "a"}, "tokens", "it must be a list", TYPE),
    Bad("/detokenize", {"tokens": [1.5]}, "tokens[0]", "`tokens[0]` is 1.5; it must be a", TYPE),
]  # fmt: skip

BAD_REQUESTS = [*BAD_JSON, *BAD_SHAPES, *BAD_CHATS, *BAD_COMPLETIONS, *BAD_OTHERS]
IDS = [f"{number}-{bad.path}" for number, bad in enumerate(BAD_REQUESTS)]


def post(http: httpx2.Client, path: str, body: Any) -> httpx2.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return http.post(path, content=content, headers={"Content-Type": "application/json"})


@pytest.mark.parametrize("bad", BAD_REQUESTS, ids=IDS)
def test_a_bad_request_has_a_clear_error_and_the_server_serves_on(
    http: httpx2.Client, fake_server: FakeServer, bad: Bad
) -> None:
    response = post(http, bad.path, bad.body)
    error = response.json()["error"]
    status = 404 if bad.code == "model_not_found" else bad.status
    assert (response.status_code, error["code"], error["param"]) == (status, bad.code, bad.param)
    assert bad.message in error["message"]
    assert error["type"] == "invalid_request_error"
    assert error["message"].endswith(".")
    assert len(response.content) <= MAX_ERROR_BYTES
    assert fake_server.service.requests == []
    assert post(http, "/generate", {"prompt": "Hi"}).status_code == 200


def test_there_are_sixty_distinct_bad_requests() -> None:
    assert len({(bad.path, str(bad.body)) for bad in BAD_REQUESTS}) == len(BAD_REQUESTS)
    assert len(BAD_REQUESTS) >= 60
