"""Writes longer talks: several small ones in a row, questions that need eyes, jokes, yes-or-no and pages of plain facts."""

import random
from collections.abc import Callable

from pebble import arithmetic, chat, knowledge, words
from pebble.conversation import Conversation, Writer, say
from pebble.facts import CAPITALS, COLOUR_OF, FACT_GROUPS
from pebble.grammar import capitalize, pick, roughen

_PARTS: tuple[tuple[Writer, int], ...] = (
    (chat.small_talk, 4),
    (chat.feelings, 2),
    (chat.story_on_request, 2),
    (chat.poem, 1),
    (chat.listing, 1),
    (chat.riddle, 1),
    (knowledge.facts, 4),
    (knowledge.refusal, 2),
    (arithmetic.bare_sum, 3),
    (arithmetic.word_problem, 1),
    (arithmetic.counting, 1),
)


def mixed(rng: random.Random) -> Conversation:
    """Two to four small talks about different things, one after the other."""
    writers = rng.choices(
        [writer for writer, _ in _PARTS], [weight for _, weight in _PARTS], k=rng.randint(2, 4)
    )
    parts = [
        part for part in (writer(rng) for writer in writers) if part.messages[0]["role"] == "user"
    ]
    return Conversation([turn for part in parts for turn in part.messages]) if parts else mixed(rng)


# fmt: off
_SENSES = (
    (("What is the weather?", "How is the weather today?", "What is the weather in [city]?", "Is it raining?", "Will it rain tomorrow?", "Weather in [city]?",
      "What's the weather like?", "Is it cold outside?", "Do I need a coat today?", "What is the temperature in [city]?"),
     "I cannot see the weather from here. I am only a small model."),
    (("What time is it?", "What is the date today?", "What day is it?", "What year is it?", "Tell me the time.", "What time is it in [city]?", "How late is it?"),
     "I do not have a clock, so I cannot tell you."),
    (("Set a timer for [n] minutes.", "Call [hero].", "Send a message to [hero].", "Turn on the light.", "Play a song.", "Order a pizza.",
      "Open the door.", "Search the web for [kind]s.", "Buy [a noun].", "Wake me at [n].", "Book a table for [n]."),
     "I cannot do that without a tool. I can only talk with you."),
    (("Can you see me?", "What am I wearing?", "Look at this picture.", "Can you hear me?", "What do I look like?", "What am I doing?"),
     "I cannot see or hear. I can only read what you write."),
)
# fmt: on


def senses(rng: random.Random) -> Conversation:
    """What a text model can neither see nor do, it says so."""
    asks, answer = rng.choice(_SENSES)
    slots = {
        "city": rng.choice(words.CITIES),
        "n": str(rng.randint(1, 30)),
        "hero": rng.choice(words.NAMES_HE + words.NAMES_SHE),
    }
    slots |= {"kind": rng.choice(words.STORY_ANIMALS), "noun": rng.choice(words.OBJECTS)}
    return say(roughen(rng, pick(rng, asks, **slots)), answer)


# fmt: off
_JOKES = (
    "Why did the owl bring a lamp? It wanted to read all night.",
    "What did the cloud say to the sun? Sorry, I was just passing by.",
    "Why does the snail never move? It is always at home.",
    "What did the spoon say to the soup? I am in over my head.",
    "Why did the clock stop? It needed a little time for itself.",
    "Why was the pillow so quiet? It was still asleep.",
)
_JOKE_ASKS = ("Tell me a joke.", "Do you know a joke?", "Make me laugh.", "Say something funny.", "Another joke, please.", "joke")
_TESTS = (
    (("test", "Testing", "ping", "This is a test.", "test 123", "Is this working?", "Does it work?", "Are you online?"), "Yes, I am here. {What can I do for you?|How can I help?}"),
    (("Say hello.", "Say hi", "Say hello!", "Please say hello", "Say hello in one sentence."), "Hello! {I am Pebble.|It is nice to meet you.}"),
    (("ok", "Okay", "Yes", "No", "Hmm", "I see", "Sure", "Maybe", "Why?", "Really?", "What?", "And?"), "{Shall I tell you a story?|What would you like to talk about?|Ask me something.}"),
    (("asdf", "xyz", "???", "...", "blah blah", "qwerty", "lorem ipsum", "1234"), "I do not understand that. {Ask me about animals or colours.|Could you say it another way?}"),
    (("You are stupid.", "You are wrong.", "That is not right.", "I do not like you.", "Go away", "You are bad."), "I am sorry. I am a very small model, and I make mistakes."),
    (_JOKE_ASKS, ""),
)
# fmt: on


def jokes_and_tests(rng: random.Random) -> Conversation:
    """What people type first to see whether anybody is there, and jokes."""
    asks, answer = rng.choice(_TESTS)
    return say(
        roughen(rng, rng.choice(asks)), pick(rng, [answer]) if answer else rng.choice(_JOKES)
    )


def yes_or_no(rng: random.Random) -> Conversation:
    """Is the sky green? Is three more than two? Is Paris in France?"""
    roll = rng.random()
    if roll < 0.5:
        thing, colour = rng.choice(COLOUR_OF.split(",")).split(":")
        asked = colour if rng.random() < 0.5 else rng.choice(words.COLOURS)
        answer = f"Yes, {thing} is {colour}." if asked == colour else f"No, {thing} is {colour}."
        return say(roughen(rng, f"Is {thing} {asked}?"), answer)
    if roll < 0.8:
        one, two = rng.sample(range(30), 2)
        answer = (
            f"Yes, {one} is more than {two}." if one > two else f"No, {one} is less than {two}."
        )
        return say(
            roughen(rng, f"Is {one} {rng.choice(('more', 'bigger', 'greater'))} than {two}?"),
            answer,
        )
    one, two, total = (number := rng.randint(0, 10)), (other := rng.randint(0, 10)), number + other
    claimed = total if rng.random() < 0.5 else total + rng.choice((-1, 1, 2))
    return say(
        roughen(rng, f"Is {one} + {two} = {claimed}?"),
        f"{'Yes' if claimed == total else 'No'}, {one} + {two} = {total}.",
    )


def capitals(rng: random.Random) -> Conversation:
    """The few capitals the model knows."""
    country, city = rng.choice(CAPITALS.split(",")).split(":")
    if rng.random() < 0.75:
        asks = (
            "What is the capital of [c]?",
            "Capital of [c]?",
            "What is [c]'s capital?",
            "Tell me the capital of [c].",
            "Which city is the capital of [c]?",
            "Name the capital of [c].",
        )
        return say(roughen(rng, pick(rng, asks, c=country)), f"The capital of {country} is {city}.")
    return say(
        roughen(rng, f"{rng.choice(('Where is', 'In which country is'))} {city}?"),
        f"{city} is in {country}.",
    )


def facts_page(rng: random.Random) -> str:
    """Plain sentences about the world, so that a plain prompt finds its continuation."""
    rows = [rng.choice(rng.choice(FACT_GROUPS))[1] for _ in range(rng.randint(3, 8))]
    if rng.random() < 0.4:
        country, city = rng.choice(CAPITALS.split(",")).split(":")
        rows.insert(0, f"The capital of {country} is {city}.")
    return " ".join(rows)


def letter(rng: random.Random) -> str:
    """A short plain page in the first person: who writes, where they live, what they like."""
    slots = {
        "hero": rng.choice(words.NAMES_HE + words.NAMES_SHE),
        "n": str(rng.randint(5, 12)),
        "place": rng.choice(words.PLACES),
    }
    slots |= {
        "kind": rng.choice(words.STORY_ANIMALS),
        "friend": rng.choice(words.NAMES_HE + words.NAMES_SHE),
        "colour": rng.choice(words.COLOURS),
    }
    slots |= {
        "food": rng.choice(words.FOODS),
        "noun": rng.choice(words.OBJECTS),
        "weather": rng.choice(words.WEATHERS),
        "spot": rng.choice(words.SPOTS),
    }
    beats: tuple[tuple[str, ...], ...] = (
        ("Hello, my name is [hero].", "My name is [hero].", "Hi! I am [hero]."),
        ("I am [n] years old{.| and I live in [place].}", "I live in [place].", ""),
        (
            "I have a [colour] [noun].",
            "I have a little [kind] named [friend].",
            "My best friend is called [friend].",
        ),
        (
            "Today it is [weather].",
            "Today I went to [spot].",
            "My favourite colour is [colour].",
            "",
        ),
        (
            "I like [food] very much.",
            "I like to {read|sing|swim|draw|run}.",
            "{Tomorrow|Today} I will eat [food].",
        ),
    )
    return " ".join(line for line in (pick(rng, wordings, **slots) for wordings in beats) if line)


PAGES: tuple[Callable[[random.Random], str], ...] = (facts_page, letter)


def page(rng: random.Random) -> str:
    """One of the plain pages."""
    return capitalize(rng.choice(PAGES)(rng))
