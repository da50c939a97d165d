"""What the tests of the engine's laws vary: how an engine is set up, and what it is asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from appliance.engine.engine import Engine

if TYPE_CHECKING:
    from appliance.engine.runner import Runner
    from appliance.engine.sequence import SamplingParams
    from tests.fakes import FakeObserver


@dataclass(frozen=True)
class Request:
    """One completion to ask for."""

    prompt_ids: tuple[int, ...]
    params: SamplingParams
    is_pooled: bool = False
    num_steps_before: int = 0  # engine steps between the request before and this one
    answer: tuple[int, ...] | None = None  # the only one that its grammar allows
    cache_salt: bytes = b""
    owner: str = ""
    priority: int = 0


@dataclass(frozen=True, kw_only=True)
class EngineSetup:
    """The sizes and switches of an engine: none may change an answer.

    Without spare blocks there are just enough for one sequence of `max_context_tokens`, so that
    an engine with several preempts.
    """

    max_context_tokens: int
    max_batch_tokens: int = 512
    max_sequences: int = 1
    num_threads: int = 1
    block_size: int = 16
    num_spare_blocks: int = 0
    num_shuffled: int = 0  # blocks taken and given back beforehand, out of order
    shares_prefixes: bool = False
    speculates: bool = False

    @property
    def num_blocks(self) -> int:
        return -(-self.max_context_tokens // self.block_size) + self.num_spare_blocks


def make_engine(runner: Runner, setup: EngineSetup, observer: FakeObserver) -> Engine:
    """Build an engine that the test steps by hand, with an endless queue."""
    return Engine(
        runner,
        max_batch_tokens=setup.max_batch_tokens,
        max_sequences=setup.max_sequences,
        max_queued=100,
        queue_timeout_s=1e9,
        shares_prefixes=setup.shares_prefixes,
        speculates=setup.speculates,
        observer=observer,
    )
