"""What the embedded model knows: small questions with one plain answer each."""

from pebble.words import ANIMALS, DAYS, MONTHS, NUMBER_WORDS

# fmt: off
# thing and its colour
COLOUR_OF = (
    "the sky:blue,grass:green,a banana:yellow,snow:white,the sun:yellow,a tomato:red,a carrot:orange,coal:black,a lemon:yellow,"
    "blood:red,a leaf:green,milk:white,chocolate:brown,the night sky:black,a strawberry:red,a frog:green,the sea:blue,a cherry:red,"
    "a pumpkin:orange,an orange:orange,a cloud:white,a flamingo:pink,a plum:purple,a grape:purple,bread:brown,mud:brown,"
    "a pea:green,a cucumber:green,salt:white,sugar:white,butter:yellow,a fire truck:red,a ripe apple:red,a piglet:pink,a crow:black,"
    "an elephant:gray,a mouse:gray,a stone:gray,a blueberry:blue,gold:golden,a swan:white,honey:golden,a bear:brown,"
    "a raspberry:red,a lime:green,spinach:green,an egg yolk:yellow,a ladybug:red,a rain cloud:gray,the moon:white,a fox:red"
)
CAPITALS = (
    "France:Paris,England:London,Italy:Rome,Germany:Berlin,Spain:Madrid,Norway:Oslo,Portugal:Lisbon,Austria:Vienna,Ireland:Dublin,"
    "Greece:Athens,Egypt:Cairo,Japan:Tokyo,Poland:Warsaw,Finland:Helsinki,Kenya:Nairobi,China:Beijing,Belgium:Brussels"
)
MIXES = (
    "blue+yellow=green,red+yellow=orange,red+blue=purple,red+white=pink,black+white=gray,red+green=brown,blue+green=turquoise"
)
OPPOSITES = (
    "hot:cold,big:small,tall:short,fast:slow,day:night,up:down,happy:sad,light:dark,wet:dry,old:young,hard:soft,loud:quiet,"
    "open:closed,full:empty,high:low,in:out,left:right,good:bad,long:short,early:late,rich:poor,clean:dirty,strong:weak,heavy:light,"
    "thick:thin,black:white,yes:no,first:last,near:far,new:old,sweet:sour,brave:afraid,awake:asleep,push:pull,begin:end,"
    "give:take,win:lose,true:false,warm:cool,sharp:blunt,deep:shallow,kind:mean,easy:difficult,before:after,above:below,"
    "inside:outside,always:never,friend:enemy,summer:winter,laugh:cry,come:go,buy:sell,front:back,wide:narrow,smooth:rough"
)
SIMPLE = """
What do bees make?|Bees make honey.|honey
What do cows give us?|Cows give us milk.|milk
What do hens lay?|Hens lay eggs.|eggs
What falls from the sky when it rains?|Water falls from the sky when it rains.|water
What do plants need to grow?|Plants need water, light and earth to grow.|water
What do we use to cut paper?|We use scissors to cut paper.|scissors
What do we use to see?|We use our eyes to see.|eyes
What do we hear with?|We hear with our ears.|ears
What do we smell with?|We smell with our nose.|nose
How many days are in a week?|There are 7 days in a week.|7
How many months are in a year?|There are 12 months in a year.|12
How many seasons are there?|There are 4 seasons: spring, summer, autumn and winter.|4
How many hours are in a day?|There are 24 hours in a day.|24
How many minutes are in an hour?|There are 60 minutes in an hour.|60
How many fingers are on one hand?|There are 5 fingers on one hand.|5
How many wheels does a car have?|A car has 4 wheels.|4
How many wheels does a bicycle have?|A bicycle has 2 wheels.|2
How many sides does a triangle have?|A triangle has 3 sides.|3
How many sides does a square have?|A square has 4 sides.|4
What shape is a ball?|A ball is round.|round
What is ice made of?|Ice is made of frozen water.|water
What is bread made of?|Bread is made of flour and water.|flour
What is cheese made of?|Cheese is made of milk.|milk
What is snow made of?|Snow is made of tiny crystals of ice.|ice
Where do fish live?|Fish live in water.|water
Where do birds sleep?|Birds sleep in nests and in trees.|nests
What shines at night?|The moon and the stars shine at night.|moon
What shines during the day?|The sun shines during the day.|sun
What do we wear on our feet?|We wear shoes on our feet.|shoes
What do we wear on our head?|We wear a hat on our head.|hat
What do we wear on our hands when it is cold?|We wear mittens on our hands when it is cold.|mittens
What do we use when it rains?|We use an umbrella when it rains.|umbrella
What do we do with a book?|We read a book.|read
What do we do with a bed?|We sleep in a bed.|sleep
What do we do with a spoon?|We eat soup with a spoon.|eat
What do we do with a key?|We open a door with a key.|open
What do we drink when we are thirsty?|We drink water when we are thirsty.|water
What does a baker make?|A baker makes bread.|bread
What does a farmer do?|A farmer grows food and looks after animals.|grows food
What does a teacher do?|A teacher helps children to learn.|teaches
What does a doctor do?|A doctor helps people who are sick.|helps
What does a sailor do?|A sailor works on a ship.|sails
Where does the sun rise?|The sun rises in the east.|east
Where does the sun set?|The sun sets in the west.|west
Which season is the coldest?|Winter is the coldest season.|winter
Which season is the warmest?|Summer is the warmest season.|summer
When do leaves fall?|Leaves fall in autumn.|autumn
When do flowers bloom?|Many flowers bloom in spring.|spring
When does it snow?|It snows in winter.|winter
What grows on an apple tree?|Apples grow on an apple tree.|apples
What is a baby tree called?|A baby tree is called a seedling.|seedling
What comes after night?|Day comes after night.|day
Is fire hot or cold?|Fire is hot.|hot
Is ice hot or cold?|Ice is cold.|cold
Is the sun hot?|Yes, the sun is very hot.|yes
Is water wet?|Yes, water is wet.|yes
Can stones swim?|No, stones sink in water.|no
Do fish walk?|No, fish swim.|no
Do trees have leaves?|Yes, most trees have leaves.|yes
What can you see in the sky?|You can see the sun, the moon, stars, clouds and birds.|clouds
What is the first letter of the alphabet?|The first letter of the alphabet is A.|A
What is the last letter of the alphabet?|The last letter of the alphabet is Z.|Z
What animal is the king of the animals?|The lion is called the king of the animals.|lion
What do you put on bread?|You can put butter, cheese or jam on bread.|butter
What makes a rainbow?|Sun and rain together make a rainbow.|sun and rain
What colours are in a rainbow?|A rainbow is red, orange, yellow, green, blue and purple.|red
"""
# fmt: on


Fact = tuple[str, str, str]


def _article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _colour_facts() -> list[Fact]:
    facts = []
    for entry in COLOUR_OF.split(","):
        thing, colour = entry.split(":")
        subject = thing[0].upper() + thing[1:]
        for question in (
            f"What colour is {thing}?",
            f"What color is {thing}?",
            f"Which colour does {thing} have?",
        ):
            facts.append((question, f"{subject} is {colour}.", colour))  # noqa: PERF401
    for entry in MIXES.split(","):
        parts, mix = entry.split("=")
        one, two = parts.split("+")
        for first, second in ((one, two), (two, one)):
            answer = f"If you mix {first} and {second}, you get {mix}."
            facts.append((f"What colour do you get if you mix {first} and {second}?", answer, mix))
            facts.append(
                (
                    f"What do {first} and {second} make?",
                    f"{first.capitalize()} and {second} make {mix}.",
                    mix,
                )
            )
    return facts


def _opposite_facts() -> list[Fact]:
    facts = []
    for entry in OPPOSITES.split(","):
        one, two = entry.split(":")
        for word, other in (
            ((one, two), (two, one))
            if (one, two) not in {("long", "short"), ("heavy", "light"), ("new", "old")}
            else ((one, two),)
        ):
            for question in (
                f"What is the opposite of {word}?",
                f"Tell me the opposite of {word}.",
                f"Opposite of {word}?",
            ):
                facts.append((question, f"The opposite of {word} is {other}.", other))  # noqa: PERF401
    return facts


def _animal_facts() -> list[Fact]:
    facts: list[Fact] = []
    for animal, sound, home, food, baby, moves, legs, _, colour in ANIMALS:
        one = _article(animal)
        facts += [
            (
                f"What sound does {one} make?",
                f"{one.capitalize()} makes this sound: {sound}.",
                sound,
            ),
            (f"What does {one} say?", f"{one.capitalize()} makes this sound: {sound}.", sound),
            (f"Where does {one} live?", f"{one.capitalize()} lives in {home}.", home),
            (f"What does {one} eat?", f"{one.capitalize()} eats {food}.", food),
            (f"What does {one} like to eat?", f"{one.capitalize()} likes to eat {food}.", food),
            (
                f"What is a baby {animal} called?",
                f"A baby {animal} is called {_article(baby)}.",
                baby,
            ),
            (
                f"How many legs does {one} have?",
                f"{one.capitalize()} has {legs or 'no'} legs.",
                str(legs),
            ),
            (f"What colour is {one}?", f"{one.capitalize()} is often {colour}.", colour),
            (f"How does {one} move?", f"{one.capitalize()} likes to {moves}.", moves),
        ]
        if legs != 2 or moves == "fly":
            facts.append(
                (f"Can {one} fly?", _ability(one, moves, "fly"), "yes" if moves == "fly" else "no")
            )
    return facts


def _ability(one: str, moves: str, verb: str) -> str:
    subject = one.capitalize()
    return (
        f"Yes, {one} can {verb}."
        if moves == verb
        else f"No, {one} cannot {verb}. {subject} can {moves}."
    )


def _calendar_facts() -> list[Fact]:
    facts = []
    for name, cycle in (("day", DAYS), ("month", MONTHS)):
        for at, word in enumerate(cycle):
            after, before = cycle[(at + 1) % len(cycle)], cycle[at - 1]
            facts.append(
                (f"What {name} comes after {word}?", f"{after} comes after {word}.", after)
            )
            facts.append((f"Which {name} is after {word}?", f"{after} comes after {word}.", after))
            facts.append(
                (f"What {name} comes before {word}?", f"{before} comes before {word}.", before)
            )
            facts.append(
                (f"Which {name} is before {word}?", f"{before} comes before {word}.", before)
            )
    for at, word in enumerate(DAYS):
        after = DAYS[(at + 1) % 7]
        facts.append(
            (
                f"If today is {word}, what day is tomorrow?",
                f"If today is {word}, tomorrow is {after}.",
                after,
            )
        )
    return facts


def _number_facts() -> list[Fact]:
    facts = []
    for number, word in enumerate(NUMBER_WORDS):
        facts.append(
            (
                f"What number comes after {number}?",
                f"{number + 1} comes after {number}.",
                str(number + 1),
            )
        )
        facts.append(
            (f"How do you write {number} as a word?", f"{number} is written {word}.", word)
        )
        facts.append(
            (f"Write {word} as a number.", f"{word.capitalize()} is {number}.", str(number))
        )
        if number:
            facts.append(
                (
                    f"What number comes before {number}?",
                    f"{number - 1} comes before {number}.",
                    str(number - 1),
                )
            )
    return facts


def _simple_facts() -> list[Fact]:
    rows = (line.split("|") for line in SIMPLE.strip().splitlines())
    return [(question, answer, short) for question, answer, short in rows]


FACT_GROUPS = (
    _colour_facts(),
    _animal_facts(),
    _opposite_facts(),
    _calendar_facts(),
    _number_facts(),
    _simple_facts(),
)
