"""What the engine reports, to whoever counts it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from appliance.engine.sequence import FinishReason


class EngineObserver(Protocol):
    """Told what happens when it happens, on the engine thread, and before any reader is."""

    def on_start(self, num_prompt_tokens: int, /) -> None:
        """A sequence is computed for the first time."""

    def on_reuse(self, num_tokens: int, /) -> None:
        """So many tokens were found in the cache and are not computed."""

    def on_step(self, num_tokens: int, duration_s: float, /) -> None:
        """A forward pass has ended, and its tokens are sampled."""

    def on_draft(self, num_drafted: int, num_accepted: int, /) -> None:
        """Guessed tokens were computed, and so many of them were what the model says."""

    def on_first_token(self, delay_s: float, /) -> None:
        """A sequence has its first token, so long after it was submitted."""

    def on_next_tokens(self, intervals_s: Sequence[float], /) -> None:
        """Sequences have another token each, so long after the one before; once for a batch."""

    def on_preempt(self) -> None:
        """A sequence gave its blocks to an older one and computes its tokens again later."""

    def on_end(self, reason: FinishReason, /) -> None:
        """A sequence has ended; once for each that was submitted."""
