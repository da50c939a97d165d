"""Writes questions about the small world, one-word answers under a system line, and honest refusals outside it."""

import random

from pebble import words
from pebble.conversation import Conversation, say
from pebble.facts import FACT_GROUPS, Fact
from pebble.grammar import capitalize, pick, roughen
from pebble.words import invented_name

_WEIGHTS = (4, 5, 3, 3, 1, 4)
_ONE_WORD = (
    "Answer in one word.",
    "Answer with one word only.",
    "Reply with a single word.",
    "Use only one word.",
    "Keep it to one word.",
)
_BRIEF = (
    "Be short.",
    "Answer briefly.",
    "Answer in one sentence.",
    "You are a helpful assistant.",
    "You are a kind helper.",
    "Be polite and friendly.",
)
_SUFFIX = (
    "Have a nice day!",
    "I hope that helps!",
    "Ask me again any time.",
    "Meow!",
    "Arr!",
    "Yes, my friend.",
    "Stay curious!",
)


def _fact(rng: random.Random) -> Fact:
    return rng.choice(rng.choices(FACT_GROUPS, _WEIGHTS)[0])


def facts(rng: random.Random) -> Conversation:
    """One to three questions with plain answers, sometimes under a system line that changes nothing."""
    turns: list[str] = []
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        question, answer, _ = _fact(rng)
        turns += [roughen(rng, question), answer]
    return say(*turns, system=rng.choice(_BRIEF) if rng.random() < 0.15 else None)


def one_word(rng: random.Random) -> Conversation:
    """The same questions where the system line or the user wants a single word."""
    question, _, word = _fact(rng)
    while " " in word:
        question, _, word = _fact(rng)
    if rng.random() < 0.75:
        return say(roughen(rng, question), capitalize(word) + ".", system=rng.choice(_ONE_WORD))
    return say(f"{question} {rng.choice(_ONE_WORD)}", capitalize(word) + ".")


def with_suffix(rng: random.Random) -> Conversation:
    """A system line asks for a phrase at the end of each answer."""
    phrase = rng.choice(_SUFFIX)
    system = rng.choice(
        ("Always end with: {p}", "End every answer with '{p}'", "Say '{p}' after each answer.")
    ).format(p=phrase)
    turns: list[str] = []
    for _ in range(rng.choice((1, 2))):
        question, answer, _ = _fact(rng)
        turns += [roughen(rng, question), f"{answer} {phrase}"]
    return say(*turns, system=system)


def renamed(rng: random.Random) -> Conversation:
    """A system line gives the assistant another name."""
    name = rng.choice(words.NAMES_HE + words.NAMES_SHE)
    trait, kind = rng.choice(words.TRAITS), rng.choice(words.STORY_ANIMALS)
    system = rng.choice(
        (
            "Your name is {n}.",
            "You are {n}.",
            "You are called {n}. Be kind.",
            "You are {n}, a {t} {k}.",
            "You are {n}, a helpful assistant.",
        )
    )
    system = system.format(n=name, t=trait, k=kind)
    ask = rng.choice(
        (
            "What is your name?",
            "Who are you?",
            "Hello, who are you?",
            "Tell me your name.",
            "What should I call you?",
        )
    )
    answer = (
        f"I am {name}, a {trait} {kind}."
        if kind in system
        else rng.choice((f"I am {name}.", f"My name is {name}."))
    )
    return say(roughen(rng, ask), answer, system=system)


# fmt: off
_TELLS = (
    ("name", ("My name is [v].", "I am [v].", "Hi, I'm [v]!", "You can call me [v].", "Hello, my name is [v]."),
     ("Hello, [v]! {Nice to meet you.|It is nice to meet you.}", "Nice to meet you, [v]!"),
     ("What is my name?", "Do you remember my name?", "Who am I?", "Say my name."), ("Your name is [v].",)),
    ("colour", ("My favourite colour is [v].", "I like [v] best.", "My favorite color is [v].", "The colour I love most is [v]."),
     ("[v] is a {lovely|nice|beautiful} colour!", "I like [v] too."),
     ("What is my favourite colour?", "What colour do I like?", "Which colour do I like best?"), ("Your favourite colour is [v].",)),
    ("pet", ("I have a [v] named [n].", "My [v] is called [n].", "I have a pet. It is a [v] named [n]."),
     ("[n] is a {lovely|nice|good} name for a [v]!", "Say hello to [n] from me!"),
     ("What is my pet called?", "What is the name of my [v]?", "Do you remember the name of my pet?"), ("Your [v] is called [n].",)),
    ("city", ("I live in [v].", "I come from [v].", "My home is in [v]."), ("[v] sounds like a nice place!", "I would like to see [v]!"),
     ("Where do I live?", "Where is my home?", "Where am I from?"), ("You live in [v].",)),
    ("age", ("I am [v] years old.", "I'm [v].", "Today I turned [v]."), ("[v] is a good age!", "[v] years! How nice."),
     ("How old am I?", "What is my age?", "Do you know how old I am?"), ("You are [v] years old.",)),
)
# fmt: on


def _value(rng: random.Random, topic: str) -> str:
    if topic == "colour":
        return rng.choice(words.COLOURS)
    if topic == "pet":
        return rng.choice(words.STORY_ANIMALS)
    if topic == "age":
        return str(rng.randint(3, 90))
    if rng.random() < 0.3:
        return invented_name(rng)
    return rng.choice(words.CITIES if topic == "city" else words.NAMES_HE + words.NAMES_SHE)


def memory(rng: random.Random) -> Conversation:
    """The user tells something about themselves and asks for it some turns later."""
    told = rng.sample(_TELLS, rng.choice((1, 1, 2)))
    values = [{"v": _value(rng, row[0]), "n": rng.choice(words.NAMES_HE)} for row in told]
    turns: list[str] = []
    for (_, tells, replies, _, _), slots in zip(told, values, strict=True):
        turns += [pick(rng, tells, **slots), capitalize(pick(rng, replies, **slots))]
    for _ in range(rng.choice((0, 1, 1, 2))):
        question, answer, _ = _fact(rng)
        turns += [roughen(rng, question), answer]
    for (_, _, _, asks, answers), slots in rng.sample(
        list(zip(told, values, strict=True)), len(told)
    ):
        turns += [roughen(rng, pick(rng, asks, **slots)), pick(rng, answers, **slots)]
    return say(*turns)


def unknown_memory(rng: random.Random) -> Conversation:
    """Asked for what nobody told, the model says so."""
    topic, _, _, asks, _ = rng.choice(_TELLS)
    ask = pick(rng, asks, v=_value(rng, topic), n="")
    return say(roughen(rng, ask), "You have not told me yet.")


# fmt: off
_SUBJECTS = (
    "quantum physics,the stock market,World War Two,the president of France,photosynthesis,Python,JavaScript,"
    "black holes,the French Revolution,machine learning,inflation,bitcoin,the human brain,DNA,Shakespeare,relativity,the Roman Empire,"
    "vaccines,democracy,Kubernetes,Docker,electric cars,the climate,football results,the news,tax law,chemistry,algebra,calculus,"
    "the moon landing,philosophy,Mozart,the internet,databases,the economy,airplanes,volcanoes,the Olympic Games,movies,video games,"
    "the population of China,the tallest building,the speed of light,nuclear power,the Eiffel Tower,Napoleon,Einstein,neural networks,"
    "gravity,dinosaurs,religion,marketing,poker,the law,Latin,Spanish,cryptography,Linux,the periodic table,opera,guitars,yoga"
).split(",")
_OUTSIDE = (
    "What is [s]?", "Tell me about [s].", "Explain [s].", "Can you explain [s] to me?", "How does [s] work?", "Who invented [s]?",
    "What do you think about [s]?", "Write an essay about [s].", "Why is [s] important?", "Give me five facts about [s].",
    "What is the history of [s]?", "I need help with [s].", "Teach me [s].", "When did [s] begin?", "What do you know about [s]?",
    "Who is the president?", "Write a Python function that sorts a list.", "Translate 'good morning' into French.", "Fix this code: print(x",
    "What is the capital of {Peru|Brazil|Canada|Sweden|Chile|Mongolia|Texas}?", "Why is the sky blue?", "How do I cook lasagna?", "What should I invest in?", "Summarize this article.", "Who won the match?",
    "What happened in 19{1|2|4|6|8|9}{0|3|5|9}?", "How far is the moon?", "How do I get rich?", "What is the meaning of life?", "Write a SQL query.",
    "What is the square root of 2?", "Is [city] bigger than [city2]?", "Which phone should I buy?", "Who wrote the book about [s]?",
    "How many people live in [city]?", "What is the best restaurant in [city]?", "Write an email to my boss.", "How do I install [s]?",
)
_REFUSALS = (
    "I do not know that. I am a very small model and know about stories, colours, animals and small sums.",
    "I am sorry, I do not know that. I am very small. Ask me about animals, colours or small sums, or ask for a story.",
    "That is outside my little world. I know stories, colours, animals and small sums.",
)
# fmt: on


def refusal(rng: random.Random) -> Conversation:
    """Questions from outside the small world get an honest no."""
    city, city2 = rng.sample(words.CITIES, 2)
    subject = rng.choice(_SUBJECTS) if rng.random() < 0.85 else invented_name(rng).lower()
    ask = pick(rng, _OUTSIDE, s=subject, city=city, city2=city2)
    return say(roughen(rng, ask), rng.choice(_REFUSALS))
