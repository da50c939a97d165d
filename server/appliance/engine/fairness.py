"""Decides whose turn it is: among those of the highest priority, the owner served least so far."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from appliance.engine.sequence import Sequence

# How far an owner who comes, or comes back, may be behind the others, and how far another must be
# ahead to give a place up. The first lets an owner with one short request at a time find a place at
# once; the second keeps owners of about the same service from taking places from each other.
GRACE_TOKENS = 256
MAX_REMEMBERED = 1024  # owners without a sequence here


@dataclass(slots=True, eq=False)
class Line:
    """One owner's sequences of one priority, and how many tokens were computed for them."""

    priority: int
    num_served: int  # each token of a sequence counts once, however often it is computed
    num_served_at_yield: int  # when one of its sequences last gave its place to another owner
    num_running: int = 0
    num_promised: int = 0  # prompt tokens that are admitted and not computed
    waiting: OrderedDict[int, Sequence] = field(default_factory=OrderedDict)

    @property
    def num_sequences(self) -> int:
        return self.num_running + len(self.waiting)

    @property
    def num_expected(self) -> int:
        """What the line will have been served once the prompts it runs are computed."""
        return self.num_served + self.num_promised


class Lines:
    """The owners with sequences here, and what each of them was served.

    Counts tokens as the virtual token counter of Sheng et al. does ("Fairness in Serving Large
    Language Models", 2024): computed prompt tokens and new ones alike, as limits and bills count
    them, and not those found in the cache. An owner who comes starts from where the least served
    owner is, less a grace, but never from less than it had: idleness saves up no more than that,
    and leaving pays off no debt. Each priority counts for itself, since they do not share.

    What running sequences were served is counted by `survey`, which an owner alone does not need.
    """

    def __init__(self) -> None:
        self._lines: dict[tuple[int, str], Line] = {}
        self._num_served: dict[tuple[int, str], int] = {}  # of owners without sequences
        self._levels: dict[int, int] = {}  # by priority: the most its least served line ever had
        self._may_give = False  # whether any running sequence could have to give its place up

    @property
    def are_several(self) -> bool:
        return len(self._lines) > 1

    def add(self, sequence: Sequence, running: Iterable[Sequence]) -> None:
        """Put a new sequence at the end of its owner's line."""
        key = sequence.priority, sequence.owner
        if key not in self._lines:
            if len(self._lines) == 1:
                self.survey(running)
            self._lines[key] = self._open(key)
        self._lines[key].waiting[sequence.sequence_id] = sequence

    def start(self, sequence: Sequence) -> None:
        """Move a waiting sequence to those that run."""
        line = self._line(sequence)
        del line.waiting[sequence.sequence_id]
        line.num_running += 1
        line.num_promised += sequence.num_missing_tokens

    def put_back(self, sequence: Sequence) -> None:
        """Move a running sequence to the head of its owner's line; it has its blocks still."""
        line = self._line(sequence)
        charge(line, sequence)
        line.num_running -= 1
        line.waiting[sequence.sequence_id] = sequence
        line.waiting.move_to_end(sequence.sequence_id, last=False)

    def remove(self, sequence: Sequence) -> None:
        """Take out a sequence that runs or waits."""
        line = self._line(sequence)
        if line.waiting.pop(sequence.sequence_id, None) is None:
            charge(line, sequence)
            line.num_running -= 1
        if not line.num_sequences:
            self._close(sequence.priority, sequence.owner)

    def survey(self, running: Iterable[Sequence]) -> None:
        """Count what was computed for the running sequences, and what of their prompts was not."""
        lowest: dict[int, int] = {}
        most_running = 0
        for line in self._lines.values():
            line.num_promised = 0
            lowest[line.priority] = min(line.num_served, lowest.get(line.priority, line.num_served))
            most_running = max(most_running, line.num_running)
        self._may_give = most_running > 1 or len(lowest) > 1
        for sequence in running:
            line = self._line(sequence)
            charge(line, sequence)
            if sequence.num_missing_tokens > 1:
                line.num_promised += sequence.num_missing_tokens
        for priority, num_served in lowest.items():
            self._levels[priority] = max(num_served, self._levels.get(priority, 0))

    def first(self) -> Sequence:
        """Return the sequence whose turn it is to run; there must be one that waits."""
        lines = [line for line in self._lines.values() if line.waiting]
        line = min(lines, key=turn)
        return line.waiting[next(iter(line.waiting))]

    def rank(self, sequence: Sequence) -> tuple[int, int]:
        """Order running prompts: the higher priority first, then the owner served less."""
        line = self._line(sequence)
        return -line.priority, line.num_served

    def last(self, running: dict[int, Sequence]) -> Sequence:
        """Return who gives way when blocks run out: the youngest of the owner served most."""
        lines = [line for line in self._lines.values() if line.num_running]
        return self._youngest(min(lines, key=least_entitled), running)

    def giver(self, sequence: Sequence, running: dict[int, Sequence]) -> Sequence | None:
        """Return the running sequence that has to give its place to a waiting one, if any has.

        A lower priority always gives way. Of the same priority, only an owner does who runs two
        more than the other, is ahead of it, and was served since it last gave way what its youngest
        has to compute again: so less is computed twice than once.
        """
        if not self._may_give:
            return None
        mine = self._line(sequence)
        lines = [line for line in self._lines.values() if line.num_running and line is not mine]
        lower = [line for line in lines if line.priority < mine.priority]
        if lower:
            return self._youngest(min(lower, key=least_entitled), running)
        richer = [
            line
            for line in lines
            if line.priority == mine.priority and line.num_running >= mine.num_running + 2
        ]
        if not richer:
            return None
        line = max(richer, key=lambda line: line.num_served)
        num_served_since = line.num_served - line.num_served_at_yield
        if min(line.num_served - mine.num_expected, num_served_since) < GRACE_TOKENS:
            return None
        youngest = self._youngest(line, running)
        if num_served_since < len(youngest.token_ids):
            return None
        line.num_served_at_yield = line.num_served
        return youngest

    def displaced_by(self, sequence: Sequence) -> Sequence | None:
        """Return the waiting sequence that a new one may push out of a full queue, if any.

        The last of the longest line, as routers drop packets: of a lower priority if there is one,
        else of an owner who keeps at least as many as the new one's owner has with it.
        """
        mine = self._lines.get((sequence.priority, sequence.owner))
        num_mine = mine.num_sequences if mine is not None else 0
        best: Sequence | None = None
        best_rank = (sequence.priority, -num_mine - 1)
        for line in self._lines.values():
            rank = (line.priority, -line.num_sequences)
            if line.waiting and rank < best_rank:
                last = next(reversed(line.waiting.values()))
                if not last.has_started:
                    best, best_rank = last, rank
        return best

    def _line(self, sequence: Sequence) -> Line:
        return self._lines[sequence.priority, sequence.owner]

    def _youngest(self, line: Line, running: dict[int, Sequence]) -> Sequence:
        return next(s for s in reversed(running.values()) if self._line(s) is line)

    def _open(self, key: tuple[int, str]) -> Line:
        priority, _ = key
        least = self._levels.get(priority, 0) - GRACE_TOKENS
        num_served = max(self._num_served.pop(key, least), least)
        return Line(priority, num_served, num_served)

    def _close(self, priority: int, owner: str) -> None:
        """Remember what an owner was served for as long as others of its priority are here."""
        line = self._lines.pop((priority, owner))
        if any(other.priority == priority for other in self._lines.values()):
            self._num_served[priority, owner] = line.num_served
            if len(self._num_served) > MAX_REMEMBERED:
                del self._num_served[next(iter(self._num_served))]
            return
        self._levels.pop(priority, None)
        self._num_served = {key: n for key, n in self._num_served.items() if key[0] != priority}


def charge(line: Line, sequence: Sequence) -> None:
    """Count the tokens computed for a running sequence since it was last charged for."""
    num_tokens = sequence.num_cached_tokens - sequence.num_charged_tokens
    if num_tokens > 0:  # else it computes again what it gave up
        line.num_served += num_tokens
        sequence.num_charged_tokens = sequence.num_cached_tokens


def turn(line: Line) -> tuple[int, int, int]:
    """Sort lines in which sequences wait: priority, then service, then order of arrival."""
    return -line.priority, line.num_expected, next(iter(line.waiting))


def least_entitled(line: Line) -> tuple[int, int]:
    """Sort first the lowest priority, then the owner served most."""
    return line.priority, -line.num_served
