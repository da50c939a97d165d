"""Declares the events that the engine reports to a counter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from appliance.engine.sequence import FinishReason


class EngineObserver(Protocol):
    """Receives events on the engine thread, before any reader does."""

    def on_start(self, num_prompt_tokens: int, /) -> None:
        """Record that a sequence is computed for the first time."""

    def on_reuse(self, num_tokens: int, /) -> None:
        """Record how many tokens were found in the cache, and so are not computed."""

    def on_step(self, num_tokens: int, duration_s: float, /) -> None:
        """Record the end of a forward pass, its tokens sampled."""

    def on_draft(self, num_drafted: int, num_accepted: int, /) -> None:
        """Record how many guessed tokens were computed and how many of them were right."""

    def on_first_token(self, delay_s: float, /) -> None:
        """Record the time from a sequence's submission to its first token."""

    def on_next_tokens(self, intervals_s: Sequence[float], /) -> None:
        """Record the times between a token and the one before, for all sequences of a batch."""

    def on_preempt(self) -> None:
        """Record that a sequence gave up its blocks and will compute its tokens again."""

    def on_end(self, reason: FinishReason, /) -> None:
        """Record the end of a sequence; called once for each that was submitted."""
