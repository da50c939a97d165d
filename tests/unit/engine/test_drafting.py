"""What is guessed, and when guessing stops."""

from __future__ import annotations

import itertools

from appliance.engine.drafting import (
    FIRST_LENGTH,
    FIRST_PAUSE_TOKENS,
    MAX_LENGTH,
    MAX_PAUSE_TOKENS,
    MAX_SEARCHED_TOKENS,
    Drafter,
)


def test_the_same_four_tokens_are_expected_to_go_on_as_they_did_last() -> None:
    assert Drafter().draft([0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 6, 7, 0, 1, 2, 3], 7) == (6, 7)


def test_tokens_are_told_apart_whatever_their_bytes() -> None:
    assert Drafter().draft([0x01000000, 0x01000000, 1, 1, 1, 1, 9, 256, 256, 256, 256], 7) == ()
    assert Drafter().draft([1, 1, 1, 1, 256, 256, 256, 256, 7, 256, 256, 256, 256], 7) == (7, 256)


def test_only_so_much_is_searched() -> None:
    said = [0, 1, 2, 3, 4, *range(9, MAX_SEARCHED_TOKENS), 0, 1, 2, 3]
    assert Drafter().draft(said, 7) == (4, 9)
    assert Drafter().draft([*said[:5], 5, 6, *said[5:]], 7) == ()


def test_nothing_is_guessed_after_what_was_not_there_before() -> None:
    assert Drafter().draft([0, 1, 2, 3, 4, 9, 1, 2, 3], 7) == ()
    assert Drafter().draft([1, 2, 3], 7) == ()
    assert Drafter().draft([0, 1, 2, 3, 4, 0, 1, 2, 3], 0) == ()


def test_a_loop_is_expected_to_go_round() -> None:
    drafter = Drafter()
    drafter.learn(2, 2, 0)
    assert drafter.draft([5, 5, 5, 5, 5], 4) == (5, 5, 5, 5)


def test_tokens_that_came_while_it_paused_are_remembered() -> None:
    drafter = Drafter()
    tokens = [0, 1, 2, 3, 4]
    assert drafter.draft(tokens, 7) == ()
    drafter.learn(2, 0, len(tokens))
    tokens += list(range(100, 100 + FIRST_PAUSE_TOKENS - 1))
    assert drafter.draft([*tokens[:-4], 0, 1, 2, 3], 7) == ()
    tokens += [0, 1, 2, 3]
    assert drafter.draft(tokens, 7) == (4, 100)


def test_right_guesses_grow_and_wrong_ones_shrink() -> None:
    drafter, lengths = Drafter(), []
    tokens = [*range(20), 0, 1, 2, 3]
    for num_accepted in (2, 4, 7, 3, 1, 0):
        drafted = drafter.draft(tokens, MAX_LENGTH)
        lengths.append(len(drafted))
        drafter.learn(len(drafted), num_accepted, len(tokens))
    assert lengths == [FIRST_LENGTH, 4, 7, 7, 3, 1]


def test_each_wrong_guess_in_a_row_is_followed_by_a_longer_pause() -> None:
    """So that a sequence which never repeats itself pays for fewer and fewer."""
    drafter, tokens, guessed_at = Drafter(), [0, 1, 2, 3], []
    for _ in range(3000):
        tokens += [0, 1, 2, 3] if len(tokens) % 2 else [0, 1, 2, 3, 4]
        drafted = drafter.draft(tokens, MAX_LENGTH)
        if drafted:
            guessed_at.append(len(tokens))
            drafter.learn(len(drafted), 0, len(tokens))
    pauses = [later - earlier for earlier, later in itertools.pairwise(guessed_at)]
    assert pauses[0] >= FIRST_PAUSE_TOKENS
    assert all(pause >= MAX_PAUSE_TOKENS for pause in pauses[6:])
    assert len(guessed_at) < len(tokens) / 300
