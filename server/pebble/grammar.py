"""Expands text templates: `{a|b}` picks one of several wordings, `[slot]` fills in a word, `[a slot]` with its article."""

import random
import re
from collections.abc import Mapping, Sequence

_CHOICE = re.compile(r"\{([^{}]*)\}")
_SLOT = re.compile(r"\[([aA] )?(\w+)\]")


def article(word: str) -> str:
    """The indefinite article a word takes."""
    return (
        "an" if word[0].lower() in "aeiou" and not word.startswith(("uni", "use", "one")) else "a"
    )


def capitalize(text: str) -> str:
    """Raises the first letter and leaves the others alone."""
    return text[:1].upper() + text[1:]


def expand(rng: random.Random, template: str, slots: Mapping[str, str]) -> str:
    """Resolves choices from the innermost outwards, then slots; a capital slot name capitalizes its word."""
    while "{" in template:
        template = _CHOICE.sub(lambda match: rng.choice(match[1].split("|")), template)

    def fill(match: re.Match[str]) -> str:
        name = match[2]
        word = slots[name] if name in slots else capitalize(slots[name.lower()])
        if match[1] is None:
            return word
        return f"{article(word) if match[1][0] == 'a' else capitalize(article(word))} {word}"

    return _SLOT.sub(fill, template)


def pick(rng: random.Random, templates: Sequence[str], **slots: str) -> str:
    """Expands one of several templates."""
    return expand(rng, rng.choice(templates), slots)


def join_words(words: Sequence[str]) -> str:
    """`a, b and c`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def roughen(rng: random.Random, text: str) -> str:
    """Types a user's line the way people do: casing, missing punctuation, a stray letter, a call by name."""
    roll = rng.random()
    if roll < 0.12:
        text = (
            rng.choice(
                [
                    "Hey Pebble, ",
                    "Pebble, ",
                    "Please tell me: ",
                    "Hi! ",
                    "ok, ",
                    "So, ",
                    "Quick question: ",
                ]
            )
            + text
        )
    if rng.random() < 0.22:
        text = text.lower()
    if rng.random() < 0.18:
        text = text.rstrip("?.!")
    if rng.random() < 0.03:
        text = text.upper()
    if rng.random() < 0.04 and len(text) > 12:
        at = rng.randrange(1, len(text) - 1)
        text = text[:at] + text[at + 1 :]
    if rng.random() < 0.05:
        text = text + rng.choice([" please", " Thanks!", "?", "!", " :)"])
    return text
