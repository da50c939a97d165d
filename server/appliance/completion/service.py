"""Turns a completion request into engine sequences, and their tokens into deltas."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import numpy as np
from pydantic import JsonValue

from appliance.completion.answer import Completion, Embeddings
from appliance.completion.choice import ChoiceDecoder, IdDecoder, ToolReader, unfinished
from appliance.completion.request import (
    Account,
    ChatPrompt,
    CompletionRequest,
    Reservation,
    Tool,
    given,
)
from appliance.completion.stream import CompletionStream
from appliance.engine.engine import Engine, check_token_ids
from appliance.engine.sequence import SamplingParams
from appliance.engine.stream import SequenceStream
from appliance.errors import ContextLengthExceeded, InvalidRequest
from appliance.text.chat_template import ChatTemplate
from appliance.text.detokenizer import Detokenizer
from appliance.text.grammar import CompiledGrammar, GrammarCompiler, GrammarConstraint
from appliance.text.tokenizer import Tokenizer
from appliance.text.tool_calls import ToolCallParser, ToolFormat, visible_ids

# Texts longer than this are encoded in a worker thread, so that other answers keep flowing.
LONG_TEXT_CHARS = 20_000

RESERVED_UNASKED = 256  # new tokens of an answer whose request names no limit


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingDefaults:
    """How a model wants to be sampled when a request does not say: its generation_config.json."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int | None = None
    min_p: float = 0.0
    repetition_penalty: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TextModel:
    """The text side of a model: everything between strings and token ids."""

    tokenizer: Tokenizer
    template: ChatTemplate
    grammars: GrammarCompiler
    tool_format: ToolFormat | None
    bos_token_id: int | None  # put before a plain prompt whose tokenizer does not do so itself
    stop_token_ids: frozenset[int]
    vocab_size: int
    max_context_tokens: int
    defaults: SamplingDefaults


class CompletionService:
    """The product. Built once in serve/wiring.py; used from the event loop only."""

    def __init__(self, engine: Engine, model: TextModel) -> None:
        self._engine = engine
        self._model = model

    async def start(self, request: CompletionRequest) -> CompletionStream:
        """Check, tokenize and submit a request; raises every RequestError there can be."""
        prompt_ids = await self._encode_prompt(request.prompt)
        max_new_tokens = self._max_new_tokens(request, len(prompt_ids))
        grammar = await self._grammar(request)
        reservation = reserve(request.account, most_tokens(request, prompt_ids, max_new_tokens))
        parts: list[tuple[SequenceStream, ChoiceDecoder]] = []
        try:
            for index in range(request.n):
                params = self._sampling_params(request, max_new_tokens, request.seed + index)
                constraint = grammar.constraint() if grammar is not None else None
                decoder = self._decoder(index, request, prompt_ids, constraint)
                sequence = self._engine.submit(
                    prompt_ids,
                    params,
                    constraint,
                    request_id=request.request_id,
                    cache_salt=request.cache_salt,
                    owner=request.owner,
                    priority=request.priority,
                )
                parts.append((sequence, decoder))
        except BaseException:
            for sequence, _ in parts:
                sequence.cancel()
            if reservation is not None:
                reservation.settle(0)
            raise
        return CompletionStream(self._model.tokenizer, prompt_ids, parts, reservation)

    async def complete(self, request: CompletionRequest) -> Completion:
        """All choices, finished. Cancelling the awaiting task cancels the sequences."""
        stream = await self.start(request)
        return await stream.collect()

    async def embed(
        self,
        inputs: tuple[str | tuple[int, ...], ...],
        *,
        owner: str = "",
        priority: int = 0,
        account: Account | None = None,
    ) -> Embeddings:
        """The mean of the final hidden states of each input, scaled to length 1."""
        prompts = [await self._encode_prompt(text) for text in inputs]
        for prompt_ids in prompts:
            if len(prompt_ids) > self._model.max_context_tokens:
                raise self._too_long(len(prompt_ids))
        num_tokens = sum(map(len, prompts))
        reservation = reserve(account, num_tokens)
        num_used = 0
        params = SamplingParams(max_new_tokens=0, seed=0)
        streams: list[SequenceStream] = []
        try:
            for prompt_ids in prompts:  # not a comprehension: what was submitted must be cancelled
                stream = self._engine.submit(
                    prompt_ids, params, is_pooled=True, owner=owner, priority=priority
                )
                streams.append(stream)
            num_used = num_tokens
            vectors = [await first_embedding(stream) for stream in streams]
        finally:
            for stream in streams:
                stream.cancel()
            if reservation is not None:
                reservation.settle(num_used)
        return Embeddings(vectors=vectors, num_tokens=num_tokens)

    async def tokenize(
        self, prompt: str | ChatPrompt, *, add_special_tokens: bool = True
    ) -> list[int]:
        if isinstance(prompt, ChatPrompt):
            return await self._encode_chat(prompt)
        return await self._encode_text(prompt, add_special_tokens=add_special_tokens)

    async def detokenize(self, token_ids: tuple[int, ...]) -> str:
        check_token_ids(token_ids, self._model.vocab_size)
        return self._model.tokenizer.decode(token_ids, skip_special_tokens=False)

    async def _encode_prompt(self, prompt: str | tuple[int, ...] | ChatPrompt) -> tuple[int, ...]:
        if isinstance(prompt, ChatPrompt):
            prompt_ids = tuple(await self._encode_chat(prompt))
        elif isinstance(prompt, str):
            prompt_ids = tuple(await self._encode_text(prompt, add_special_tokens=True))
        else:
            check_token_ids(prompt, self._model.vocab_size)
            prompt_ids = prompt
        if not prompt_ids:
            raise InvalidRequest("The prompt is empty. Send at least one token.", field="prompt")
        return prompt_ids

    async def _encode_text(self, text: str, *, add_special_tokens: bool) -> list[int]:
        encode = self._model.tokenizer.encode
        if len(text) <= LONG_TEXT_CHARS:
            token_ids = encode(text, add_special_tokens=add_special_tokens)
        else:
            token_ids = await asyncio.to_thread(encode, text, add_special_tokens=add_special_tokens)
        bos = self._model.bos_token_id
        if add_special_tokens and bos is not None and token_ids[:1] != [bos]:
            token_ids.insert(0, bos)
        return token_ids

    async def _encode_chat(self, prompt: ChatPrompt) -> list[int]:
        return await asyncio.to_thread(self._render_and_encode, prompt)

    def _render_and_encode(self, prompt: ChatPrompt) -> list[int]:
        tools = [openai_tool(tool) for tool in prompt.callable_tools]
        text = self._model.template.render(prompt.messages, tools)
        return self._model.tokenizer.encode(text, add_special_tokens=False)

    def _max_new_tokens(self, request: CompletionRequest, num_prompt_tokens: int) -> int:
        """Return the limit the request names, else its default or what is left of the context."""
        room = self._model.max_context_tokens - num_prompt_tokens
        if room < min(1, given(request.max_new_tokens, 1)):
            raise self._too_long(num_prompt_tokens)
        wanted = agreed_limit(request, num_prompt_tokens)
        if wanted is None:
            return min(given(request.default_new_tokens, room), room)
        if wanted > room:
            raise self._too_long(num_prompt_tokens, wanted)
        return wanted

    def _too_long(self, num_prompt_tokens: int, num_new_tokens: int = 0) -> ContextLengthExceeded:
        return ContextLengthExceeded.of(
            num_prompt_tokens, self._model.max_context_tokens, num_new_tokens=num_new_tokens
        )

    def _sampling_params(
        self, request: CompletionRequest, max_new_tokens: int, seed: int
    ) -> SamplingParams:
        defaults = self._model.defaults
        return SamplingParams(
            max_new_tokens=max_new_tokens,
            seed=seed,
            temperature=given(request.temperature, defaults.temperature),
            top_p=given(request.top_p, defaults.top_p),
            top_k=given(request.top_k, defaults.top_k),
            min_p=given(request.min_p, defaults.min_p),
            repetition_penalty=given(request.repetition_penalty, defaults.repetition_penalty),
            presence_penalty=request.presence_penalty,
            frequency_penalty=request.frequency_penalty,
            logit_bias=request.logit_bias,
            stop_token_ids=self._model.stop_token_ids,
            num_logprobs=request.num_logprobs,
            num_prompt_logprobs=request.num_prompt_logprobs,
        )

    async def _grammar(self, request: CompletionRequest) -> CompiledGrammar | None:
        """What the answer must look like, if the request says so. Compiles in a thread."""
        grammars, prompt, output = self._model.grammars, request.prompt, request.output
        if isinstance(prompt, ChatPrompt) and prompt.callable_tools:
            if output.kind != "text":
                raise InvalidRequest(
                    "`output` cannot be combined with `tools` that may be called. "
                    "Send one of them, or `tool_choice` none.",
                    field="output",
                )
            return await asyncio.to_thread(self._tool_grammar, prompt)
        if output.kind == "json_object":
            return await asyncio.to_thread(grammars.json_object)
        if output.kind == "json_schema":
            return await asyncio.to_thread(grammars.json_schema, output.schema or {})
        return None

    def _tool_grammar(self, prompt: ChatPrompt) -> CompiledGrammar | None:
        """With `auto`, text is free, and what begins as a call is one of an offered tool."""
        grammars, tool_format = self._model.grammars, self._model.tool_format
        if tool_format is None:
            raise InvalidRequest(
                "This model's chat template has no tool calls that we can read. Send no tools.",
                field="tools",
                code="no_tool_calls",
            )
        tools = {tool.name: dict(tool.parameters) for tool in prompt.callable_tools}
        if prompt.tool_choice.kind == "auto":
            return grammars.optional_tool_calls(tools, tool_format)
        return grammars.tool_call(tools, tool_format, named=prompt.tool_choice.name)

    def _decoder(
        self,
        index: int,
        request: CompletionRequest,
        prompt_ids: tuple[int, ...],
        constraint: GrammarConstraint | None,
    ) -> ChoiceDecoder:
        model, prompt = self._model, request.prompt
        tools = self._tool_reader(prompt) if isinstance(prompt, ChatPrompt) else None
        visible = visible_ids(model.tokenizer) if tools is not None else frozenset()
        # A continuation goes on from the prompt's last character; an answer begins anew.
        prefix_ids = () if isinstance(prompt, ChatPrompt) else prompt_ids
        decoder = IdDecoder if request.returns_token_ids else ChoiceDecoder
        return decoder(
            index,
            model.tokenizer,
            Detokenizer(model.tokenizer, request.stop, prefix_ids, visible_ids=visible),
            model.stop_token_ids,
            constraint=constraint,
            tools=tools,
        )

    def _tool_reader(self, prompt: ChatPrompt) -> ToolReader | None:
        if not prompt.callable_tools or self._model.tool_format is None:
            return None
        names = frozenset(tool.name for tool in prompt.callable_tools)
        is_forced = prompt.tool_choice.kind != "auto"
        return ToolReader(ToolCallParser(self._model.tool_format), names, is_forced=is_forced)


def most_tokens(
    request: CompletionRequest, prompt_ids: tuple[int, ...], max_new_tokens: int
) -> int:
    """Return what the request may take, as far as it says so itself. Without a limit of its own an
    answer may fill the context, which would be beyond most quotas: the rest is paid afterwards."""
    is_open = request.max_new_tokens is None and request.max_total_tokens is None
    num_new = min(max_new_tokens, RESERVED_UNASKED) if is_open else max_new_tokens
    return len(prompt_ids) + request.n * num_new


def reserve(account: Account | None, num_tokens: int) -> Reservation | None:
    return None if account is None else account.reserve(num_tokens)


def agreed_limit(request: CompletionRequest, num_prompt_tokens: int) -> int | None:
    """Return how many new tokens the request's limits allow; both at once must allow the same."""
    total, new = request.max_total_tokens, request.max_new_tokens
    if total is None:
        return new
    if total <= num_prompt_tokens:
        raise InvalidRequest(
            f"`max_total_tokens` is {total} and counts prompt plus new tokens; the prompt has"
            f" {num_prompt_tokens}. Raise it or use `max_new_tokens`.",
            field="max_total_tokens",
        )
    if new is not None and num_prompt_tokens + new != total:
        raise InvalidRequest(
            f"`max_total_tokens` is {total} and `max_new_tokens` is {new}; the prompt has"
            f" {num_prompt_tokens} tokens, so that they end the answer at {total} and at"
            f" {num_prompt_tokens + new}. Send one of them.",
            field="max_total_tokens",
        )
    return total - num_prompt_tokens


async def first_embedding(stream: SequenceStream) -> list[float]:
    """The embedding a pooled sequence ends with, scaled to length 1."""
    reason = None
    async for event in stream:
        if event.embedding is not None:
            vector = event.embedding / max(float(np.linalg.norm(event.embedding)), 1e-12)
            return [float(value) for value in vector]
        reason = event.finish_reason
    raise unfinished(reason)


def openai_tool(tool: Tool) -> dict[str, JsonValue]:
    """A tool in the shape that chat templates know."""
    function: dict[str, JsonValue] = {
        "name": tool.name,
        "description": tool.description,
        "parameters": dict(tool.parameters),
    }
    return {"type": "function", "function": function}
