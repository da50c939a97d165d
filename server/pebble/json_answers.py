"""Writes conversations whose answer is a JSON value: people, animals, sums and lists taken from the user's words."""

import json
import random

from pebble import words
from pebble.conversation import Conversation, say
from pebble.words import invented_name

_SYSTEMS = (
    "Answer in JSON.",
    "Answer with a JSON object.",
    "Reply with JSON only.",
    "Only output valid JSON.",
    "You answer with JSON and nothing else.",
    "Respond with a JSON object.",
    "You are a helpful assistant that answers in JSON.",
)
_COMMANDS = (
    "Give me JSON:",
    "As JSON:",
    "Write this as JSON:",
    "Turn this into a JSON object:",
    "Answer in JSON.",
    "Make a JSON object:",
    "Extract the data as JSON:",
)
_JSON_TYPES = {str: "string", int: "integer", bool: "boolean", list: "array"}


def _person(rng: random.Random) -> str:
    return (
        rng.choice(words.NAMES_HE + words.NAMES_SHE) if rng.random() < 0.75 else invented_name(rng)
    )


def _record(rng: random.Random) -> tuple[str, dict[str, object]]:
    """A sentence and the values it tells."""
    name, age, city = (
        _person(rng),
        rng.randint(3, 90),
        rng.choice(words.CITIES) if rng.random() < 0.7 else invented_name(rng),
    )
    animal, colour, noun = (
        rng.choice(words.STORY_ANIMALS),
        rng.choice(words.COLOURS),
        rng.choice(words.OBJECTS),
    )
    count, things, day = rng.randint(1, 50), rng.choice(words.THINGS), rng.choice(words.DAYS)
    records: list[tuple[str, dict[str, object]]] = [
        (f"{name} is {age} years old.", {"name": name, "age": age}),
        (
            f"{name} is {age} years old and lives in {city}.",
            {"name": name, "age": age, "city": city},
        ),
        (f"{name} lives in {city}.", {"name": name, "city": city}),
        (
            f"{name} has a {animal} and {count} {things}.",
            {"name": name, "pet": animal, "count": count, "things": things},
        ),
        (
            f"The {noun} is {colour} and costs {count}.",
            {"thing": noun, "colour": colour, "price": count},
        ),
        (
            f"{name} bought {count} {things} on {day}.",
            {"name": name, "count": count, "item": things, "day": day},
        ),
        (
            f"A {colour} {animal} named {name}.",
            {"animal": animal, "colour": colour, "name": name},
        ),
        (
            f"{name} likes {colour} and lives with a {animal}.",
            {"name": name, "colour": colour, "pet": animal},
        ),
        (f"{name}, {age}, {city}", {"name": name, "age": age, "city": city}),
        (
            f"On {day} it was {count} degrees in {city}.",
            {"day": day, "degrees": count, "city": city},
        ),
        (f"{name} has {count} {things}.", {"name": name, "count": count, "things": things}),
    ]
    return rng.choice(records)


def _dump(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _schema(record: dict[str, object]) -> str:
    properties = {key: {"type": _JSON_TYPES[type(value)]} for key, value in record.items()}
    return _dump({"type": "object", "properties": properties, "required": list(record)})


def extraction(rng: random.Random) -> Conversation:
    """A sentence in, an object out; keys by custom, by list or by schema."""
    sentence, record = _record(rng)
    roll = rng.random()
    if roll < 0.35:
        return say(sentence, _dump(record), system=rng.choice(_SYSTEMS))
    if roll < 0.6:
        return say(f"{rng.choice(_COMMANDS)} {sentence}", _dump(record))
    if roll < 0.8:
        keys = rng.sample(list(record), rng.randint(1, len(record)))
        ask = rng.choice(
            (
                "Use the keys {k}.",
                "The keys are {k}.",
                "Answer in JSON with the keys {k}.",
                "I want a JSON object with {k}.",
            )
        )
        return say(
            f"{sentence} {ask.format(k=', '.join(keys))}", _dump({key: record[key] for key in keys})
        )
    lead = rng.choice(
        (
            "Answer with JSON that fits this schema:",
            "Answer with a JSON object that matches this JSON schema:",
            "Use this schema:",
        )
    )
    return say(sentence, _dump(record), system=f"{lead} {_schema(record)}")


def invention(rng: random.Random) -> Conversation:
    """Objects made up on request: a character, an animal, a shopping list."""
    animal = rng.choice(words.ANIMALS)
    roll = rng.random()
    system = rng.choice(_SYSTEMS) if rng.random() < 0.5 else None
    how = "" if system else rng.choice((" as JSON", " in JSON", " as a JSON object"))
    if roll < 0.3:
        record = {
            "animal": animal[0],
            "colour": animal[8],
            "legs": animal[6],
            "home": animal[2],
            "food": animal[3],
        }
        return say(
            rng.choice(
                ("Describe a {a}{h}.", "Tell me about the {a}{h}.", "What is a {a}?{h}")
            ).format(a=animal[0], h=how),
            _dump(record),
            system=system,
        )
    if roll < 0.6:
        hero = {
            "name": _person(rng),
            "kind": rng.choice(words.STORY_ANIMALS),
            "trait": rng.choice(words.TRAITS),
            "age": rng.randint(1, 20),
        }
        ask = rng.choice(
            (
                "Make up a story character{h}.",
                "Invent a character{h}.",
                "Give me a hero for a story{h}.",
                "Describe a person{h}.",
            )
        )
        return say(ask.format(h=how), _dump(hero), system=system)
    what, members = rng.choice(
        (
            ("colours", words.COLOURS),
            ("animals", words.STORY_ANIMALS),
            ("fruits", words.FRUITS),
            ("toys", words.OBJECTS),
        )
    )
    count = rng.randint(2, 5)
    chosen = rng.sample(list(members), count)
    if roll < 0.8:
        return say(
            rng.choice(
                (
                    "Give me a JSON list of {n} {w}.",
                    "List {n} {w} as a JSON array.",
                    "{n} {w} as a JSON array, please.",
                )
            ).format(n=count, w=what),
            _dump(chosen),
        )
    return say(f"List {count} {what}{how}.", _dump({what: chosen}), system=system)


def sums(rng: random.Random) -> Conversation:
    """Small sums and yes-or-no answers as JSON."""
    one, two = rng.randint(0, 20), rng.randint(0, 20)
    system = rng.choice(_SYSTEMS)
    roll = rng.random()
    if roll < 0.5:
        return say(
            f"What is {one} + {two}?", _dump({"a": one, "b": two, "sum": one + two}), system=system
        )
    if roll < 0.75:
        return say(
            rng.choice(("Is {a} bigger than {b}?", "Is {a} more than {b}?")).format(a=one, b=two),
            _dump({"answer": one > two}),
            system=system,
        )
    return say(
        f"Say hello to {(name := _person(rng))}.",
        _dump({"message": f"Hello, {name}!"}),
        system=system,
    )
