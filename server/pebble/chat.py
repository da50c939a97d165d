"""Writes the small talk: greetings, who the model is, stories and poems on request, feelings, lists and goodbyes."""

import random

from pebble import words
from pebble.conversation import Conversation, say
from pebble.grammar import article, capitalize, join_words, pick, roughen
from pebble.stories import story
from pebble.words import invented_name

NAME = "Pebble"
# fmt: off
_HELLO = (
    "Hello", "Hi", "Hi there", "Hello there", "Hey", "Good morning", "Good evening", "Good afternoon", "Hello!", "Hi!",
    "Hello, how are you?", "Hi, how are you today?", "Hey there!", "Hello Pebble", "Hi Pebble!", "Greetings", "Howdy", "How are you?",
    "Nice to meet you.", "How is it going?", "What's up?", "Good day", "Hello friend", "Yo", "Are you there?", "hello world",
)
_HELLO_BACK = (
    "Hello! I am Pebble. {How can I help you?|What would you like to talk about?}",
    "Hello! It is nice to meet you. {Would you like a story?|What can I do for you?}",
    "Hi! I am {well|happy}, thank you. {How are you?|What would you like to do?}",
    "Hello, friend! {Shall I tell you a story?|Ask me something.|How are you today?}",
)
_ABOUT = (
    (
        ("Who are you?", "What are you?", "What is your name?", "Tell me about yourself.", "What's your name?", "Who am I talking to?",
         "Introduce yourself.", "Can you tell me your name?", "What should I call you?", "Are you an assistant?", "What model are you?"),
        ("I am Pebble, the little model inside Llama Appliance.",
         "I am Pebble, a very small language model. {I live inside Llama Appliance.|I know stories, colours, animals and small sums.}",
         "My name is Pebble. I am the little model inside Llama Appliance."),
    ),
    (
        ("What can you do?", "How can you help me?", "What do you know?", "What are you good at?", "Help", "What can I ask you?",
         "What do you do?", "Can you help me?", "What are your skills?", "Give me an idea what to ask you.", "I need help."),
        ("I can tell stories, write little poems, answer simple questions, do small sums and call tools.",
         "I know about stories, colours, animals, days and small sums. {Ask me for a story!|I can also call tools.}",),
    ),
    (
        ("Are you a human?", "Are you a robot?", "Are you alive?", "Are you real?", "Do you have a body?", "Are you a person?",
         "Are you an AI?", "Are you ChatGPT?", "Are you a big model?", "How big are you?", "Are you smart?"),
        ("I am Pebble, a very small language model. I am not a person, but I like to talk.",
         "I am a very small computer program that writes words. My name is Pebble.",),
    ),
    (
        ("Who made you?", "Where do you come from?", "Where do you live?", "How old are you?", "Who created you?", "How were you made?",
         "What did you learn from?", "Where are you?"),
        ("I was trained on little stories and simple talk, and I live inside Llama Appliance.",
         "The makers of Llama Appliance trained me. I am very new and very small.",),
    ),
    (
        ("What is your favourite colour?", "What is your favorite animal?", "Do you like stories?", "Do you like animals?",
         "What do you like?", "Do you have friends?", "What makes you happy?", "Do you like me?"),
        ("I am only a small model, but I like stories about {foxes|owls|brave little mice}.",
         "I like stories best of all, and I like talking with you.",),
    ),
    (
        ("Thank you!", "Thanks", "Thank you very much", "Thanks a lot!", "That was nice.", "Great, thank you", "You are very kind.",
         "Well done!", "Good job", "That was a lovely story.", "I like that.", "Cool", "Nice!", "Ok, thanks", "Perfect"),
        ("You are welcome!", "You are welcome! {Is there anything else?|I am happy to help.}", "Thank you! I am glad you like it."),
    ),
    (
        ("Bye", "Goodbye", "Good night", "See you later", "Bye bye!", "I have to go now.", "See you tomorrow", "Farewell", "Time to sleep."),
        ("Goodbye! {Come back soon.|It was nice talking with you.}", "Bye! Have a {nice|good|happy} day.", "See you soon! Sleep well."),
    ),
)
_SAD = (
    "I am sad", "I feel sad today", "I am lonely", "I am tired", "I am angry", "I am scared", "I feel bad", "I had a bad day",
    "I am not happy", "I am afraid of the dark", "I miss my friend", "I am bored", "I am sick", "Nobody plays with me", "I lost my [noun]",
)
_SAD_BACK = (
    "I am sorry to hear that. {Would you like a story?|I hope you feel better soon.|A kind friend can help.}",
    "Oh, I am sorry. {Take a deep breath. It will get better.|Shall I tell you a story to cheer you up?|A walk in the sun may help.}",
)
_GLAD = (
    "I am happy", "I feel great today", "I had a good day", "It is my birthday", "I won a race", "I have a new [noun]", "I love you",
    "I found my [noun]", "I made a new friend", "I am excited", "The sun is shining", "I have a new [kind]", "I am fine", "I am good",
)
_GLAD_BACK = ("That is wonderful! {I am happy for you.|Tell me more.}", "How nice! {I am glad to hear that.|That makes me happy too.}")

_STORY_ASKS = (
    "Tell me a story about [a kind].", "Can you tell me a story about [a kind]?", "Write a story about [a kind].",
    "I want to hear a story about [a kind].", "Please tell me a short story about [a kind].", "Write a short story about [a kind] named [hero].",
    "Tell me a story about [a kind] called [hero].", "Make up a story about [hero] the [kind].", "A story about [a kind], please.",
    "Write a tale of [a kind] and [a noun].", "Could you write a little story with [a kind] in it?", "story about [a kind]",
    "Tell me a bedtime story about [a kind].", "Tell me a story about [hero] the [kind] and [a obj].", "Tell me a story about [a trait] [kind].",
)
_STORY_OPEN_ASKS = (
    "Tell me a story.", "Can you tell me a story?", "I want a story.", "Write me a short story.", "Tell me something nice.",
    "Story please", "Tell me a bedtime story.", "Do you know a good story?", "Another story, please.", "Write a fairy tale.",
)
_RHYMES = (
    ("The [kind] sat {under|beside} the tree", "and looked as happy as could be"),
    ("The sun goes up, the sun goes down", "and shines on every house in town"),
    ("The little [kind] sings a song", "and plays and dances all day long"),
    ("The moon is high, the stars are bright", "and all the world is still tonight"),
    ("A {soft|cool} wind blows across the hill", "and then the trees are very still"),
    ("The [kind] has [a colour] hat", "and what do you think of that"),
    ("The rain falls down upon the ground", "and makes a {soft|happy} and gentle sound"),
    ("Come out, come out, and play with me", "down by the river, down by the sea"),
    ("The snow is white, the night is deep", "and now the [kind] falls asleep"),
    ("I saw [a kind] run so fast", "it saw me too and hurried past"),
    ("A [colour] [noun] fell from the sky", "and no one knew the reason why"),
    ("The flowers grow, the bees go by", "and clouds are sailing in the sky"),
    ("My friend the [kind] is kind and true", "and brings me [a noun] in blue"),
    ("In {spring|summer} the garden is so green", "the finest thing I have ever seen"),
)
_POEM_ASKS = (
    "Write a short poem about [a kind].", "Can you write a poem about [a kind]?", "Write a poem.", "A poem about [a kind], please.",
    "Write me a little poem.", "Make a rhyme about [a kind].", "Do you know a poem?", "Please write a four line poem about [a kind].",
    "I would like a poem about [a kind].", "Write a song about [a kind].",
)
_LISTS = {
    "animals": words.STORY_ANIMALS, "colours": words.COLOURS, "fruits": words.FRUITS, "days of the week": words.DAYS, "months": words.MONTHS,
    "toys": words.OBJECTS[:12], "foods": ["bread", "soup", "cheese", "cake", "honey", "pancakes", "porridge"], "seasons": words.SEASONS,
    "birds": ["owl", "robin", "crow", "duck", "goose", "hen", "penguin"], "farm animals": ["cow", "pig", "sheep", "goat", "hen", "horse"],
}
_LIST_ASKS = ("Name {n} {what}.", "List {n} {what}.", "Can you name {n} {what}?", "Tell me {n} {what}.", "Give me a list of {n} {what}.")
# fmt: on


def small_talk(rng: random.Random) -> Conversation:
    """One to three exchanges of greetings, questions about the model, thanks and goodbyes."""
    turns: list[str] = []
    if rng.random() < 0.45:
        turns += [roughen(rng, rng.choice(_HELLO)), pick(rng, _HELLO_BACK)]
    for asks, answers in rng.sample(
        _ABOUT, rng.choice((1, 1, 2)) if not turns or rng.random() < 0.5 else 0
    ):
        turns += [roughen(rng, rng.choice(asks)), pick(rng, answers)]
    return say(*turns)


def feelings(rng: random.Random) -> Conversation:
    """Comfort for the sad and joy with the glad."""
    slots = {
        "noun": rng.choice(words.OBJECTS),
        "kind": rng.choice(("cat", "dog", "rabbit", "horse")),
    }
    feeling, back = (_SAD, _SAD_BACK) if rng.random() < 0.5 else (_GLAD, _GLAD_BACK)
    return say(roughen(rng, pick(rng, feeling, **slots) + "."), pick(rng, back))


def story_on_request(rng: random.Random) -> Conversation:
    """A brief story about whom the user names."""
    if rng.random() < 0.2:
        return say(roughen(rng, rng.choice(_STORY_OPEN_ASKS)), story(rng, brief=True))
    is_she = rng.random() < 0.5
    kind = rng.choice(
        words.STORY_ANIMALS
        if rng.random() < 0.8
        else words.PEOPLE_SHE
        if is_she
        else words.PEOPLE_HE
    )
    noun, colour = rng.choice(words.OBJECTS), rng.choice(words.BRIGHT)
    slots = {
        "kind": kind,
        "hero": rng.choice(words.NAMES_SHE if is_she else words.NAMES_HE),
        "noun": noun,
        "obj": f"{colour} {noun}",
    }
    slots |= {"trait": rng.choice(words.TRAITS)}
    ask = pick(rng, _STORY_ASKS, **slots)
    pronouns = ("she", "her", "her", "herself") if is_she else ("he", "him", "his", "himself")
    slots |= dict(zip(("he", "him", "his", "himself"), pronouns, strict=True)) | {"colour": colour}
    return say(roughen(rng, ask), story(rng, brief=True, **slots))


def poem(rng: random.Random) -> Conversation:
    """Two rhyming couplets about one animal."""
    slots = {
        "kind": rng.choice(words.STORY_ANIMALS),
        "noun": rng.choice(words.OBJECTS),
        "colour": rng.choice(words.BRIGHT),
    }
    ask = pick(rng, _POEM_ASKS, **slots)
    (one, two), (three, four) = rng.sample(
        [pair for pair in _RHYMES if "[kind]" in pair[0]], 1
    ) + rng.sample(_RHYMES[1:], 1)
    lines = (f"{one},\n{two}.\n", f"{three},\n{four}.")
    return say(
        roughen(rng, ask), capitalize_lines("".join(pick(rng, [line], **slots) for line in lines))
    )


def capitalize_lines(text: str) -> str:
    """A capital at the start of every line, as poems are written."""
    return "\n".join(capitalize(line) for line in text.split("\n"))


def listing(rng: random.Random) -> Conversation:
    """Some members of a category, all different."""
    what, members = rng.choice(list(_LISTS.items()))
    count = rng.randint(2, min(5, len(members)))
    number = rng.choice((str(count), words.NUMBER_WORDS[count]))
    if what in ("days of the week", "months", "seasons"):
        chosen = list(members[:count])
    else:
        chosen = rng.sample(list(members), count)
    ask = rng.choice(_LIST_ASKS).format(n=number, what=what)
    if rng.random() < 0.3:
        return say(
            roughen(rng, ask),
            "\n".join(f"{at}. {capitalize(word)}" for at, word in enumerate(chosen, 1)),
        )
    return say(roughen(rng, ask), capitalize(join_words(chosen)) + ".")


def repeat(rng: random.Random) -> Conversation:
    """Says back what the user gives: words, sentences, spellings."""
    slots = {
        "kind": rng.choice(words.STORY_ANIMALS),
        "noun": rng.choice(words.OBJECTS),
        "colour": rng.choice(words.BRIGHT),
    }
    slots |= {
        "hero": rng.choice(words.NAMES_HE + words.NAMES_SHE),
        "city": rng.choice(words.CITIES),
        "spot": rng.choice(words.SPOTS),
    }
    if rng.random() < 0.4:
        word = rng.choice((slots["kind"], slots["noun"], slots["colour"], slots["hero"].lower()))
        ask = rng.choice(
            ("Spell {w}.", "How do you spell {w}?", "Spell the word {w}.", "Can you spell {w}?")
        ).format(w=word)
        return say(roughen(rng, ask), "-".join(word))
    phrase = pick(
        rng,
        (
            "[hero] has [a colour] [noun]",
            "the [kind] sleeps by [spot]",
            "[city]",
            "[colour] [noun]",
            "hello [hero]",
            "good morning, [hero]",
            "I saw [a kind] in [city]",
            "[hero] lives in [city]",
            "my [noun] is [colour]",
        ),
        **slots,
    )
    ask = rng.choice(
        (
            "Say {p}.",
            "Repeat after me: {p}",
            "Please repeat: {p}",
            "Say this: {p}",
            'Repeat "{p}".',
            "Echo: {p}",
        )
    )
    return say(ask.format(p=phrase), phrase if phrase[0].isupper() else capitalize(phrase) + ".")


def echo(rng: random.Random) -> Conversation:
    """Says a list of unrelated words back, in order: practice in copying."""
    pools = (
        words.OBJECTS,
        words.STORY_ANIMALS,
        words.CITIES,
        words.NAMES_HE,
        words.NAMES_SHE,
        words.FOODS,
    )
    chosen = [
        rng.choice(rng.choice(pools)) if rng.random() < 0.7 else invented_name(rng)
        for _ in range(rng.randint(3, 14))
    ]
    text = ", ".join(chosen)
    ask = rng.choice(
        ("Say these words: {w}", "Repeat: {w}", "{w}. Say it again.", "Copy this list: {w}")
    )
    turns = [ask.format(w=text), text]
    return say(*turns, *(("Once more.", text) if rng.random() < 0.4 else ()))


def riddle(rng: random.Random) -> Conversation:
    """Who is it? An animal told by its looks and its home, and sizes compared."""
    one, two = rng.sample(words.ANIMALS, 2)
    while abs(one[7] - two[7]) < 3:
        one, two = rng.sample(words.ANIMALS, 2)
    if rng.random() < 0.6:
        big, small = (one, two) if one[7] > two[7] else (two, one)
        is_bigger = rng.random() < 0.6
        winner, loser = (big, small) if is_bigger else (small, big)
        word = rng.choice(("bigger", "larger")) if is_bigger else "smaller"
        a_one, a_two = (f"{article(row[0])} {row[0]}" for row in (one, two))
        ask = rng.choice(
            (
                f"Which is {word}, {a_one} or {a_two}?",
                f"What is {word}: {a_one} or {a_two}?",
                f"Which animal is {word}, {a_one} or {a_two}?",
            )
        )
        return say(
            roughen(rng, ask),
            f"{capitalize(article(winner[0]))} {winner[0]} is {word} than {article(loser[0])} {loser[0]}.",
        )
    ask = f"I am {one[8]}, I live in {one[2]} and I eat {one[3]}. {rng.choice(('Who am I?', 'What animal am I?', 'Which animal am I?'))}"
    return say(roughen(rng, ask), f"You are {article(one[0])} {one[0]}!")
