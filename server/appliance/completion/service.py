"""Turns a completion request into engine sequences, and their tokens into deltas."""

from __future__ import annotations

from collections.abc import AsyncIterator

from appliance.completion.answer import Completion, Delta, Embeddings, TokenChoice, Usage
from appliance.completion.request import ChatPrompt, CompletionRequest


class CompletionService:
    """The product. Built once in wiring.py; used from the event loop only."""

    async def start(self, request: CompletionRequest) -> CompletionStream:
        """Check, tokenize and submit a request. Every RequestError is raised here, before anything is sent."""
        raise NotImplementedError

    async def complete(self, request: CompletionRequest) -> Completion:
        """All choices of a request, finished. Cancelling the awaiting task cancels the sequences."""
        raise NotImplementedError

    async def embed(self, inputs: tuple[str | tuple[int, ...], ...]) -> Embeddings:
        """The mean of the final hidden states of each input, scaled to length 1."""
        raise NotImplementedError

    async def tokenize(self, prompt: str | ChatPrompt, *, add_special_tokens: bool = True) -> list[int]:
        raise NotImplementedError

    async def detokenize(self, token_ids: tuple[int, ...]) -> str:
        raise NotImplementedError


class CompletionStream:
    """The deltas of one request as they come, of all its choices mixed. Close it to cancel what still runs."""

    request: CompletionRequest
    prompt_choices: tuple[TokenChoice | None, ...] | None = None  # prompt logprobs, known once the first delta is out

    def __aiter__(self) -> AsyncIterator[Delta]:
        raise NotImplementedError

    @property
    def usage(self) -> Usage:
        """Tokens so far; final when the iteration has ended."""
        raise NotImplementedError

    async def aclose(self) -> None:
        raise NotImplementedError
