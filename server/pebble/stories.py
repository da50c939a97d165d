"""Writes short stories whose people and things stay the same from the first line to the last."""

import random
from collections.abc import Mapping

from pebble import words
from pebble.grammar import expand, pick
from pebble.plots import ENDINGS, MORALS, OPENINGS, PLOTS
from pebble.plots_more import MORE_PLOTS

Beats = tuple[tuple[bool, tuple[str, ...]], ...]

_SHE = {"he": "she", "him": "her", "his": "her", "himself": "herself"}
_HE = {"he": "he", "him": "him", "his": "his", "himself": "himself"}


def _parse(plot: str) -> Beats:
    """Each beat: may it be left out, and its wordings."""
    lines = [line for line in plot.strip().splitlines() if line]
    return tuple(
        (line.startswith("? "), tuple(line.removeprefix("? ").split(" / "))) for line in lines
    )


_PLOTS: Mapping[str, Beats] = {name: _parse(plot) for name, plot in (PLOTS | MORE_PLOTS).items()}
_MORALS: Mapping[str, tuple[str, ...]] = {
    name: tuple(text.split(" / ")) for name, text in MORALS.items()
}
_OPENING, _ENDING = _parse(OPENINGS), _parse(ENDINGS)


def _cast_member(rng: random.Random, prefix: str, person_share: float) -> dict[str, str]:
    is_she = rng.random() < 0.5
    name = rng.choice(words.NAMES_SHE if is_she else words.NAMES_HE)
    people = words.PEOPLE_SHE if is_she else words.PEOPLE_HE
    kind = rng.choice(people if rng.random() < person_share else words.STORY_ANIMALS)
    pronouns = {f"{prefix}{key}": value for key, value in (_SHE if is_she else _HE).items()}
    return {"name": name, "kind": kind} | pronouns


def cast(rng: random.Random, **fixed: str) -> dict[str, str]:
    """Draws every slot of a story; `fixed` overrides, for a story somebody asked for."""
    hero, friend, helper = (
        _cast_member(rng, "", 0.35),
        _cast_member(rng, "f", 0.25),
        _cast_member(rng, "h", 0.0),
    )
    while friend["name"] == hero["name"] or friend["kind"] == fixed.get("kind", hero["kind"]):
        friend = _cast_member(rng, "f", 0.25)
    while helper["name"] in (hero["name"], friend["name"]) or helper["kind"] in (
        hero["kind"],
        friend["kind"],
    ):
        helper = _cast_member(rng, "h", 0.0)
    noun, (colour, colour2) = rng.choice(words.OBJECTS), rng.sample(words.BRIGHT, 2)
    spot, spot2, spot3 = rng.sample(words.SPOTS, 3)
    slots = hero | friend | helper
    slots |= {
        "hero": hero["name"],
        "kind": hero["kind"],
        "friend": friend["name"],
        "fkind": friend["kind"],
    }
    slots |= {
        "helper": helper["name"],
        "hkind": helper["kind"],
        "noun": noun,
        "obj": f"{colour} {noun}",
    }
    slots |= {"colour": colour, "colour2": colour2, "spot": spot, "spot2": spot2, "spot3": spot3}
    slots |= {
        "place": rng.choice(words.PLACES),
        "hiding": rng.choice(words.HIDING),
        "food": rng.choice(words.FOODS),
    }
    slots |= {
        "weather": rng.choice(words.WEATHERS),
        "season": rng.choice(words.SEASONS),
        "trait": rng.choice(words.TRAITS),
    }
    return slots | fixed


def _tell(
    rng: random.Random, beats: Beats, slots: Mapping[str, str], optional_share: float
) -> list[str]:
    return [
        pick(rng, wordings, **slots)
        for optional, wordings in beats
        if not optional or rng.random() < optional_share
    ]


def story(rng: random.Random, *, brief: bool = False, **fixed: str) -> str:
    """A whole story; a brief one drops the beats that may be left out and keeps to one paragraph."""
    slots = cast(rng, **fixed)
    plot = rng.choice(tuple(_PLOTS))
    slots["MORAL"] = expand(rng, rng.choice(_MORALS[plot]), slots)
    share = 0.15 if brief else 0.6
    opening, middle = _tell(rng, _OPENING, slots, share), _tell(rng, _PLOTS[plot], slots, share)
    ending = _tell(rng, _ENDING, slots, share)
    cut = rng.randint(3, max(3, len(middle) - 2))
    if brief or rng.random() < 0.35:
        return " ".join(opening + middle + ending)
    return "\n\n".join(" ".join(part) for part in (opening + middle[:cut], middle[cut:] + ending))
