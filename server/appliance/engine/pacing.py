"""Chooses how many prompt tokens a pass reads beside running answers, from past durations."""

from __future__ import annotations

# A pass that reads prompts is a gap in every answer that runs beside it. Answers that come at 12
# tokens a second at least are faster than people read (docs/experiments.md has what it costs).
SMOOTH_PASS_S = 0.08
# Where a pass of answers alone takes longer, prompts get as much again: else they hardly move.
MIN_PASSES_OF_ANSWERS = 2
# What waits is read in about as many passes, if none is this many times as long as it should be
# for that: those that wait need their first token, too.
NUM_BACKLOG_PASSES = 12
MAX_STRETCH = 2
MIN_PROMPT_TOKENS = 16  # of a pass that reads any, and for one to tell what a token takes
FIRST_PROMPT_TOKENS = 64  # while nothing is known: 0.1 s for a billion parameters on two cores
# Else nothing would tell that answers have become slow while there are always prompts to read.
ANSWERS_ALONE_EVERY = 16  # passes that read prompts beside answers
MAX_GROWTH = 4  # a pass that took longer than this many times what is known was held up


class Pace:
    """Learns how long passes take with this model on this machine, and sizes the next one."""

    def __init__(self) -> None:
        self._token_s = 0.0  # a token of a pass that reads prompts
        self._answers_s = 0.0  # a pass that reads none
        self._num_mixed = 0  # passes of both since one of answers alone

    def learn(self, num_answers: int, num_prompt_tokens: int, duration_s: float) -> None:
        """Record how long a pass of so many tokens took."""
        if not num_prompt_tokens:
            self._answers_s = renewed(self._answers_s, duration_s)
            self._num_mixed = 0
            return
        self._num_mixed += num_answers > 0
        if num_prompt_tokens >= MIN_PROMPT_TOKENS and duration_s > 0:
            token_s = duration_s / (num_answers + num_prompt_tokens)
            self._token_s = renewed(self._token_s, token_s)

    def num_prompt_tokens(self, num_answers: int, num_waiting: int) -> int:
        """Choose how many of `num_waiting` prompt tokens to read beside the answers; may be 0."""
        if not self._token_s:
            return FIRST_PROMPT_TOKENS
        if self._num_mixed >= ANSWERS_ALONE_EVERY:
            return 0
        smooth_s = max(SMOOTH_PASS_S, MIN_PASSES_OF_ANSWERS * self._answers_s)
        num_smooth = smooth_s / self._token_s
        num_wanted = num_answers + num_waiting / NUM_BACKLOG_PASSES
        num_tokens = min(max(num_smooth, num_wanted), MAX_STRETCH * num_smooth)
        return max(int(num_tokens) - num_answers, MIN_PROMPT_TOKENS)


def renewed(known_s: float, news_s: float) -> float:
    """Average the known value, if there is one, with the new."""
    return news_s if not known_s else (known_s + min(news_s, MAX_GROWTH * known_s)) / 2
