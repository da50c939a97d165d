"""Writes pages of unrelated words said again and again: the model learns to copy before it learns to tell."""

import random

from pebble import words

_POOLS = (
    words.NAMES_HE,
    words.NAMES_SHE,
    words.OBJECTS,
    words.STORY_ANIMALS,
    words.CITIES,
    words.FOODS,
    words.THINGS,
    words.COLOURS,
    words.TRAITS,
    words.SPOTS,
    words.HIDING,
    words.DAYS,
    words.MONTHS,
    words.NUMBER_WORDS,
)
_MAX_WORDS = 150


def _word(rng: random.Random) -> str:
    roll = rng.random()
    if roll < 0.2:
        return words.invented_name(rng)
    return str(rng.randint(0, 999)) if roll < 0.3 else rng.choice(rng.choice(_POOLS))


def copying_page(rng: random.Random) -> str:
    """One list of words, at least twice."""
    chosen = [_word(rng) for _ in range(rng.randint(3, 40))]
    num_times = max(2, min(6, _MAX_WORDS // len(chosen)))
    return rng.choice((" ", ", ")).join(chosen * num_times)
