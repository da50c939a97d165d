"""Writes small sums: bare, in words, as little stories, counting and comparing."""

import random

from pebble import words
from pebble.conversation import Conversation, say
from pebble.grammar import pick, roughen

_SUM_ASKS = (
    "What is {s}?",
    "What is {s}?",
    "How much is {s}?",
    "{s}",
    "{s} = ?",
    "{s}=",
    "Calculate {s}.",
    "Can you tell me what {s} is?",
    "What does {s} make?",
    "Compute {s}",
    "Solve {s}.",
    "what's {s}?",
    "Tell me {s}.",
    "Please work out {s}.",
    "Do you know {s}?",
)
_WORDS_FOR = {
    "+": ("plus", "and"),
    "-": ("minus", "take away"),
    "*": ("times", "multiplied by"),
    "/": ("divided by",),
}


def _operands(rng: random.Random) -> tuple[int, str, int, int]:
    operator = rng.choice("++++---**/")
    top = 10 if rng.random() < 0.7 else 20 if rng.random() < 0.7 else 99
    if operator == "+":
        one, two = rng.randint(0, top), rng.randint(0, top)
        return one, operator, two, one + two
    if operator == "-":
        one = rng.randint(0, top)
        two = rng.randint(0, one)
        return one, operator, two, one - two
    one, two = rng.randint(0, 10), rng.randint(0 if operator == "*" else 1, 10)
    return (one, operator, two, one * two) if operator == "*" else (one * two, operator, two, one)


def _written(rng: random.Random, one: int, operator: str, two: int) -> str:
    roll = rng.random()
    if roll < 0.2 and max(one, two) <= 20:
        return f"{words.NUMBER_WORDS[one]} {rng.choice(_WORDS_FOR[operator])} {words.NUMBER_WORDS[two]}"
    if roll < 0.35:
        return f"{one} {rng.choice(_WORDS_FOR[operator])} {two}"
    sign = rng.choice("*x") if operator == "*" else operator
    return f"{one}{sign}{two}" if roll < 0.5 else f"{one} {sign} {two}"


def bare_sum(rng: random.Random) -> Conversation:
    """One to three sums in a row, each answered as an equation."""
    turns: list[str] = []
    for _ in range(rng.choice((1, 1, 2, 3))):
        one, operator, two, result = _operands(rng)
        ask = rng.choice(_SUM_ASKS).format(s=_written(rng, one, operator, two))
        if turns and rng.random() < 0.5:
            ask = f"And {_written(rng, one, operator, two)}?"
        turns += [roughen(rng, ask), f"{one} {operator} {two} = {result}."]
    return say(*turns)


def result_only(rng: random.Random) -> Conversation:
    """A sum under a system line that wants nothing but the number."""
    one, operator, two, result = _operands(rng)
    ask = rng.choice(_SUM_ASKS).format(s=_written(rng, one, operator, two))
    system = rng.choice(
        (
            "Answer with a number only.",
            "Reply with just the number.",
            "Answer in one word.",
            "Give only the result.",
        )
    )
    return say(ask, str(result), system=system)


def big_sum(rng: random.Random) -> Conversation:
    """Sums beyond reach are declined, not guessed."""
    one, two = rng.randint(120, 99999), rng.randint(12, 99999)
    ask = rng.choice(_SUM_ASKS).format(s=f"{one} {rng.choice('+-*/')} {two}")
    return say(
        roughen(rng, ask),
        rng.choice(
            (
                "That sum is too big for me. I can only do small sums.",
                "That is too big for me. Try a smaller sum.",
            )
        ),
    )


# fmt: off
_GAIN = (
    "[name] has {n} [things]. {{[He] gets|[He] finds|[He] buys|[friend] gives [him]}} {m} more. How many [things] does [name] have{{ now|}}?",
    "There are {n} [things] on the table. [name] puts {m} more [things] on it. How many [things] are there?",
    "[name] has {n} [things] and [friend] has {m} [things]. How many [things] do they have together?",
)
_LOSS = (
    "[name] has {n} [things]. [He] {{loses|gives away|sells|gives [friend]}} {m}. How many [things] does [name] have left?",
    "There are {n} [things] in the basket. [name] takes {m} out. How many [things] are left?",
)
_GROUPS = (
    "[name] has {n} bags with {m} [things] in each bag. How many [things] does [name] have?",
    "There are {n} boxes. Each box holds {m} [things]. How many [things] are there in all?",
)
# fmt: on


def word_problem(rng: random.Random) -> Conversation:
    """A sum told as something that happens to somebody."""
    is_she = rng.random() < 0.5
    names = rng.sample(words.NAMES_SHE if is_she else words.NAMES_HE, 2)
    slots = {
        "name": names[0],
        "friend": names[1],
        "he": "she" if is_she else "he",
        "him": "her" if is_she else "him",
    }
    slots["things"] = rng.choice(words.THINGS)
    kind = rng.choice("++--*")
    templates: tuple[str, ...]
    if kind == "*":
        one, two = rng.randint(1, 10), rng.randint(1, 10)
        result, templates = one * two, _GROUPS
    elif kind == "+":
        one, two = rng.randint(1, 20), rng.randint(1, 10)
        result, templates = one + two, _GAIN
    else:
        one = rng.randint(2, 20)
        two = rng.randint(1, one - 1)
        result, templates = one - two, _LOSS
    template = rng.choice(templates).format(n=one, m=two)
    ask = pick(rng, [template], **slots)
    return say(
        roughen(rng, ask) if rng.random() < 0.3 else ask,
        f"{one} {kind} {two} = {result}. The answer is {result} {slots['things']}.",
    )


def counting(rng: random.Random) -> Conversation:
    """Counts up or down between two numbers."""
    start = rng.choice((1, 1, 1, rng.randint(0, 20)))
    end = start + rng.randint(2, 12)
    numbers = list(range(start, end + 1))
    if rng.random() < 0.25:
        ask = rng.choice(("Count backwards from {b} to {a}.", "Count down from {b} to {a}."))
        numbers.reverse()
    elif start == 1:
        ask = rng.choice(
            (
                "Count to {b}.",
                "Can you count to {b}?",
                "Count from 1 to {b}.",
                "Please count to {b}.",
            )
        )
    else:
        ask = rng.choice(
            (
                "Count from {a} to {b}.",
                "Please count from {a} to {b}.",
                "Say the numbers from {a} to {b}.",
            )
        )
    return say(roughen(rng, ask.format(a=start, b=end)), ", ".join(map(str, numbers)) + ".")


def comparing(rng: random.Random) -> Conversation:
    """Bigger, smaller, double and half."""
    one, two = rng.sample(range(100 if rng.random() < 0.5 else 20), 2)
    roll = rng.random()
    if roll < 0.35:
        return say(
            roughen(rng, f"Which number is {rng.choice(('bigger', 'larger'))}, {one} or {two}?"),
            f"{max(one, two)} is bigger than {min(one, two)}.",
        )
    if roll < 0.6:
        return say(
            roughen(rng, f"Which number is smaller, {one} or {two}?"),
            f"{min(one, two)} is smaller than {max(one, two)}.",
        )
    if roll < 0.8:
        return say(
            roughen(rng, f"What is {rng.choice(('double', 'twice'))} {one % 21}?"),
            f"{one % 21} * 2 = {one % 21 * 2}.",
        )
    return say(
        roughen(rng, f"What is half of {one % 21 * 2}?"), f"{one % 21 * 2} / 2 = {one % 21}."
    )


def table(rng: random.Random) -> str:
    """A plain page of sums, one a line."""
    rows = (_operands(rng) for _ in range(rng.randint(4, 12)))
    return "\n".join(f"{one} {operator} {two} = {result}" for one, operator, two, result in rows)
