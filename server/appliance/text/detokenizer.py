"""Turns token ids into text as they come, without cut characters or parts of stop strings."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from appliance.text.tokenizer import Tokenizer

_MAX_BYTES_OF_A_CHARACTER = 4


class Detokenizer:
    """The text of one sequence. `push` returns what is safe to send; `flush` what was held back.

    All pushed text together is `Tokenizer.decode` of the ids, special tokens skipped except
    `visible_ids`, up to the first stop string. With `prefix_ids` (the prompt's) the text goes on
    from there: its leading space is kept, and a character that the prompt cut is completed.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        stop: tuple[str, ...] = (),
        prefix_ids: Sequence[int] = (),
        *,
        visible_ids: frozenset[int] = frozenset(),
    ) -> None:
        self._tokenizer = tokenizer
        self._skipped_ids = tokenizer.special_ids - visible_ids
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._is_at_start = not prefix_ids
        self._num_spaces_to_drop = 0 if prefix_ids else tokenizer.num_leading_spaces
        self._scanner = _StopScanner(stop)
        for token_id in prefix_ids[-_MAX_BYTES_OF_A_CHARACTER:]:
            if token_id not in self._skipped_ids:
                self._utf8.decode(tokenizer.token_bytes(token_id))

    @property
    def stopped(self) -> str | None:
        """Return the stop string that ended the text, if one did."""
        return self._scanner.found

    @property
    def num_held(self) -> int:
        """Count the characters that wait because they may become a stop string."""
        return self._scanner.num_held

    def push(self, token_id: int) -> str:
        if token_id in self._skipped_ids:
            return ""
        if self._is_at_start:
            self._is_at_start = False
            piece = self._tokenizer.first_token_bytes(token_id)
        else:
            piece = self._tokenizer.token_bytes(token_id)
        return self._emit(self._utf8.decode(piece))

    def flush(self) -> str:
        """Return what remains: half a stop string as text, half a character as U+FFFD."""
        return self._emit(self._utf8.decode(b"", final=True)) + self._scanner.release()

    def _emit(self, text: str) -> str:
        if self._num_spaces_to_drop and text:
            kept = text.lstrip(" ")
            num_spaces = min(len(text) - len(kept), self._num_spaces_to_drop)
            self._num_spaces_to_drop = 0 if kept else self._num_spaces_to_drop - num_spaces
            text = text[num_spaces:]
        return self._scanner.feed(text)


class _StopScanner:
    """Passes text on, but holds back what may yet become a stop string.

    The stop string that is complete first ends the text, the longest if two end together, so the
    result does not depend on how the text was cut into pieces.
    """

    def __init__(self, stop: tuple[str, ...]) -> None:
        self.found: str | None = None
        self._stops = [_StopString(text) for text in stop if text]
        self._first_characters = frozenset(text[0] for text in stop if text)
        self._held = ""

    def feed(self, text: str) -> str:
        if self.found is not None:
            return ""
        if not self._held and self._first_characters.isdisjoint(text):
            return text
        start = len(self._held)
        pending = self._held + text
        for end, character in enumerate(text, start + 1):
            # A list, not a generator: every stop string has to see every character.
            complete = [stop.text for stop in self._stops if stop.advance(character)]
            if complete:
                self.found = max(complete, key=len)
                self._held = ""
                return pending[: end - len(self.found)]
        num_held = max(stop.num_matched for stop in self._stops)
        cut = len(pending) - num_held
        self._held = pending[cut:]
        return pending[:cut]

    @property
    def num_held(self) -> int:
        return len(self._held)

    def release(self) -> str:
        text, self._held = self._held, ""
        return text


class _StopString:
    """Knuth-Morris-Pratt: how much of one stop string the text so far ends with."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.num_matched = 0
        # _fallback[n]: the longest proper prefix of text that text[:n] ends with.
        self._fallback = [0] * (len(text) + 1)
        matched = 0
        for n in range(1, len(text)):
            while matched and text[n] != text[matched]:
                matched = self._fallback[matched]
            matched += text[n] == text[matched]
            self._fallback[n + 1] = matched

    def advance(self, character: str) -> bool:
        """Advance by a character; return True when the text ends with the whole stop string."""
        text, matched = self.text, self.num_matched
        while matched and (matched == len(text) or text[matched] != character):
            matched = self._fallback[matched]
        matched += text[matched] == character
        self.num_matched = matched
        return matched == len(text)
