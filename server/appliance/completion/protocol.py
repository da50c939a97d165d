"""What faces and agents hold: models that answer, wherever and by whatever they are computed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from appliance.errors import InvalidRequest, ModelNotFound

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping, Sequence

    from appliance.completion.answer import Completion, Delta, Embeddings, TokenChoice, Usage
    from appliance.completion.request import Account, ChatPrompt, CompletionRequest

ModelStatus = Literal["unloaded", "loading", "ready", "failed"]


class Stream(Protocol):
    """One request's answer as it grows: follow it once, and close it."""

    prompt_ids: tuple[int, ...]
    prompt_choices: tuple[TokenChoice | None, ...] | None  # known once the first delta is out

    @property
    def usage(self) -> Usage:
        """Tokens so far; final when all is done."""

    def follow(self, take: Callable[[Delta], None]) -> asyncio.Future[None]:
        """Hand each delta to `take`; the future is done after the last one, or fails."""

    def close(self) -> None:
        """Cancel what still runs."""


class Completions(Protocol):
    """Produces text."""

    async def start(self, request: CompletionRequest) -> Stream:
        """Check and submit a request; raises every RequestError there can be."""

    async def complete(self, request: CompletionRequest) -> Completion:
        """Return all choices, finished. Cancelling the awaiting task cancels the work."""

    async def tokenize(
        self, prompt: str | ChatPrompt, *, add_special_tokens: bool = True
    ) -> list[int]: ...

    async def detokenize(self, token_ids: tuple[int, ...]) -> str: ...


class Embedder(Protocol):
    """Turns texts into vectors."""

    async def embed(
        self,
        inputs: tuple[str | tuple[int, ...], ...],
        *,
        owner: str = "",
        priority: int = 0,
        account: Account | None = None,
    ) -> Embeddings:
        """Return a vector for each input; who asks is given as in CompletionRequest."""


class Provenance(Protocol):
    """What made an answer; travels with it."""

    @property
    def model(self) -> str: ...

    @property
    def generation(self) -> str | None: ...

    @property
    def fingerprint(self) -> str:
        """One short hash over all that an answer's bits depend on."""

    def short(self) -> Mapping[str, str | None]:
        """Return the hashes as answers carry them."""

    def hashes(self) -> Mapping[str, str | None]:
        """Return the hashes in full."""

    def runtime(self) -> Mapping[str, str | int]:
        """Return what computes: engine, dtype, device and machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A model that answers."""

    completions: Completions
    embedder: Embedder
    identity: Provenance
    max_context_tokens: int
    max_choices: int | None = None  # running and waiting together: more never fit

    def check_num_choices(self, num_prompts: int, n: int = 1) -> None:
        """Refuse what would be overload however long the client waited."""
        num_choices = num_prompts * n
        if self.max_choices is not None and num_choices > self.max_choices:
            asked = f"(`n` is {n})" if n > 1 else "(`prompt` is a list)"
            raise InvalidRequest(
                f"The request asks for {num_choices} completions {asked}; this server takes at"
                f" most {self.max_choices} at a time. Send several requests.",
                field="n" if n > 1 else "prompt",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedModel:
    """A model as lists show it; `served` is None while it is not loaded."""

    name: str
    status: ModelStatus
    is_required: bool = True  # the process is ready only while this model is
    served: Served | None = None
    reason: str = ""  # why it is not ready, for clients


class Asker(Protocol):
    """Who asks, as far as models are concerned."""

    def may_use(self, model: str) -> bool: ...


def model_not_found(listed: Sequence[ListedModel]) -> ModelNotFound:
    """Return the error for a name that none of the models has."""
    names = ", ".join(model.name for model in listed)
    return ModelNotFound(f"This server does not serve that model, only {names}.", field="model")


class Models(Protocol):
    """The models of this process, by name."""

    async def find(self, name: str | None = None, asker: Asker | None = None) -> Served:
        """Return the model, loading it if need be; None is the first one.

        Raises ModelNotFound, also for a model that the asker may not use, or NotReady.
        """

    def listed(self, asker: Asker | None = None) -> Sequence[ListedModel]:
        """Return all models that the asker may use, the first one first."""

    def context_limit(self, name: object) -> int | None:
        """Return the context of the named model, else the largest; None before any is loaded."""
