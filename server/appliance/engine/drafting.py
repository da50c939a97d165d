"""Guesses a sequence's next tokens from what it said before, and stops where guesses fail."""

from __future__ import annotations

from array import array
from collections.abc import Sequence as Tokens

NUM_CONTEXT_TOKENS = 4  # alike, for what came after them to be worth a guess
FIRST_LENGTH = 2
MAX_LENGTH = 7
MAX_ROWS = 8  # of a batch, drafts included: about so many cost little more than one
FIRST_PAUSE_TOKENS = 16
MAX_PAUSE_TOKENS = 512
MAX_SEARCHED_TOKENS = 2**16  # so many in a tenth of a millisecond, where a pass takes many
TOKEN_BYTES = array("i").itemsize


class Drafter:
    """Guesses for one sequence that what followed the last four tokens before follows again.

    A guess that is right all along makes the next one twice as long. One that is wrong at once
    is followed by a pause, each time twice as long: a sequence that never repeats itself pays for
    a few wasted guesses in hundreds of tokens.
    """

    __slots__ = ("_length", "_pause_tokens", "_resume_at", "_said")

    def __init__(self) -> None:
        # The tokens, as bytes: searching them takes less than a table of them would, and a fiftieth
        # of its memory.
        self._said = bytearray()
        self._length = FIRST_LENGTH
        self._pause_tokens = FIRST_PAUSE_TOKENS
        self._resume_at = 0

    def draft(self, token_ids: Tokens[int], max_length: int) -> tuple[int, ...]:
        """Guess what follows `token_ids`, which only ever grow; often there is no guess."""
        num_tokens = len(token_ids)
        if max_length < 1 or num_tokens < max(self._resume_at, NUM_CONTEXT_TOKENS):
            return ()
        self._said += array("i", token_ids[len(self._said) // TOKEN_BYTES :]).tobytes()
        start = follower_of_the_last(self._said)
        if start is None:
            return ()
        period = num_tokens - start  # beyond the end it goes round
        length = min(self._length, max_length)
        return tuple(token_ids[start + index % period] for index in range(length))

    def learn(self, num_drafted: int, num_accepted: int, num_tokens: int) -> None:
        """Record how a guess went; `num_tokens` is how many the sequence has now."""
        if num_accepted == num_drafted:
            self._length = min(2 * self._length, MAX_LENGTH)
        else:
            self._length = max(num_accepted, 1)
        if num_accepted:
            self._pause_tokens = FIRST_PAUSE_TOKENS
        else:
            self._length = FIRST_LENGTH
            self._resume_at = num_tokens + self._pause_tokens
            self._pause_tokens = min(2 * self._pause_tokens, MAX_PAUSE_TOKENS)


def follower_of_the_last(said: bytearray) -> int | None:
    """Find the token after the latest earlier occurrence of the last four; return its index."""
    run = said[-NUM_CONTEXT_TOKENS * TOKEN_BYTES :]
    first = max(len(said) - MAX_SEARCHED_TOKENS * TOKEN_BYTES, 0)
    end = len(said) - TOKEN_BYTES
    while (found := said.rfind(run, first, end)) >= 0:
        if found % TOKEN_BYTES == 0:
            return found // TOKEN_BYTES + NUM_CONTEXT_TOKENS
        end = found + len(run) - 1  # it began within a token
    return None
