"""The vocabulary of the small world the embedded model lives in, and names that nobody has."""

import random

# fmt: off
NAMES_SHE = (
    "Mia Lily Anna Ella Ruby Nora Rosie Clara Daisy Hazel Ivy Luna Maya Poppy Sara Tess Willa Zoe Bella Emma Fern Gina "
    "Holly Ida June Kira Lena Molly Nina Olive Penny Tilly Una Vera Wendy Amy Betty Cora Dora Elsie Flora Greta Hattie "
    "Iris Jenny Kate Lotte Mabel Nelly Opal Pearl Rita Stella Tara Wilma Yara Agnes Bonnie Carla Dina"
).split()
NAMES_HE = (
    "Tom Ben Sam Max Leo Finn Jack Oscar Toby Henry Otis Milo Hugo Felix Jasper Kai Louis Ned Owen Pip Ralph Simon Theo "
    "Victor Walter Alfie Bruno Charlie Dan Eddie Frank George Harry Ivan Jonas Karl Lenny Marco Noah Olli Paul Robin Rufus "
    "Sid Tim Umar Vince Will Yusuf Archie Basil Casper Dexter Elmer Fritz Gus Hank Igor Joey Kip"
).split()
FAMILY_NAMES = "Reed Stone Brook Marsh Field Wood Hill Lake Fox Bell Cook Page Gray Park West Snow Frost Day Hart Lane".split()

# animal, its sound, its home, its food, its baby, its way of moving, legs, size rank (small to large), usual colour
ANIMALS = (
    ("ant", "a tiny rustle", "an anthill", "crumbs", "larva", "crawl", 6, 1, "black"),
    ("bee", "buzz", "a hive", "nectar", "larva", "fly", 6, 2, "yellow and black"),
    ("butterfly", "no sound", "a meadow", "nectar", "caterpillar", "fly", 6, 3, "orange"),
    ("snail", "no sound", "its shell", "leaves", "little snail", "crawl", 0, 4, "brown"),
    ("mouse", "squeak", "a little hole", "cheese", "pup", "run", 4, 5, "gray"),
    ("frog", "croak", "a pond", "flies", "tadpole", "jump", 4, 6, "green"),
    ("mole", "a soft grunt", "a tunnel", "worms", "pup", "dig", 4, 7, "black"),
    ("robin", "tweet", "a nest", "worms", "chick", "fly", 2, 6, "red and brown"),
    ("hedgehog", "a snuffle", "a pile of leaves", "beetles", "hoglet", "walk", 4, 8, "brown"),
    ("squirrel", "a chatter", "a hollow tree", "nuts", "kit", "climb", 4, 9, "red"),
    ("owl", "hoot", "a hollow tree", "mice", "owlet", "fly", 2, 10, "brown"),
    ("crow", "caw", "a nest", "seeds", "chick", "fly", 2, 10, "black"),
    ("duck", "quack", "a pond", "water plants", "duckling", "swim", 2, 11, "white"),
    ("hen", "cluck", "a coop", "corn", "chick", "walk", 2, 11, "brown"),
    ("rabbit", "a soft squeak", "a burrow", "carrots", "bunny", "hop", 4, 12, "white"),
    ("cat", "meow", "a cozy house", "fish", "kitten", "climb", 4, 13, "gray"),
    ("turtle", "a quiet hiss", "its shell", "leaves", "hatchling", "swim", 4, 12, "green"),
    ("goose", "honk", "a pond", "grass", "gosling", "swim", 2, 14, "white"),
    ("fox", "a bark", "a den", "berries", "cub", "run", 4, 15, "red"),
    ("otter", "a whistle", "a river bank", "fish", "pup", "swim", 4, 15, "brown"),
    ("badger", "a growl", "a sett", "roots", "cub", "dig", 4, 16, "black and white"),
    ("beaver", "a splash", "a lodge", "bark", "kit", "swim", 4, 16, "brown"),
    ("dog", "woof", "a kennel", "bones", "puppy", "run", 4, 17, "brown"),
    ("penguin", "a honk", "the ice", "fish", "chick", "swim", 2, 16, "black and white"),
    ("goat", "bleat", "a barn", "grass", "kid", "climb", 4, 19, "white"),
    ("sheep", "baa", "a field", "grass", "lamb", "walk", 4, 20, "white"),
    ("pig", "oink", "a sty", "apples", "piglet", "walk", 4, 21, "pink"),
    ("wolf", "howl", "a den", "meat", "pup", "run", 4, 21, "gray"),
    ("deer", "a soft bleat", "the forest", "leaves", "fawn", "run", 4, 23, "brown"),
    ("lion", "roar", "the grassland", "meat", "cub", "run", 4, 25, "golden"),
    ("bear", "growl", "a cave", "honey", "cub", "climb", 4, 26, "brown"),
    ("donkey", "hee-haw", "a stable", "hay", "foal", "walk", 4, 26, "gray"),
    ("cow", "moo", "a barn", "grass", "calf", "walk", 4, 28, "black and white"),
    ("horse", "neigh", "a stable", "hay", "foal", "run", 4, 29, "brown"),
    ("elephant", "a trumpet", "the grassland", "leaves", "calf", "walk", 4, 31, "gray"),
    ("whale", "a song", "the sea", "tiny shrimps", "calf", "swim", 0, 33, "blue"),
)
STORY_ANIMALS = tuple(row[0] for row in ANIMALS if row[0] not in {"ant", "whale"})
PEOPLE_SHE = ("girl", "queen", "baker", "farmer", "sailor", "gardener", "teacher", "shepherd", "princess", "painter")
PEOPLE_HE = ("boy", "king", "baker", "farmer", "sailor", "gardener", "teacher", "shepherd", "prince", "fisherman")
TRAITS = (
    "little curious kind shy brave clever cheerful quiet gentle young small merry friendly lively patient careful playful sleepy "
    "honest proud dreamy funny busy"
).split()

COLOURS = "red blue green yellow orange purple pink brown white black gray golden silver".split()
BRIGHT = "red blue green yellow orange purple pink golden silver white".split()
OBJECTS = (
    "kite ball scarf hat key button drum lantern basket whistle ribbon bell boat book cup spoon coat shell marble box teapot "
    "umbrella blanket flute wagon mitten feather necklace clock map puppet crown"
).split()
FOODS = "cake,bread,soup,honey,jam,cheese,apple pie,pancakes,berries,cookies,nuts,porridge,pears,carrots,plums,muffins".split(",")
FRUITS = "apple,pear,plum,cherry,banana,orange,grape,peach,strawberry,melon,lemon,fig".split(",")
THINGS = "apples,pears,eggs,shells,stones,books,balls,cookies,flowers,buttons,nuts,cups,stars,coins,fish,leaves,marbles,plums".split(",")

PLACES = (
    "a green forest,a quiet village,a small farm,a sunny meadow,a wide valley,a cave on a tall hill,a hut on a little island,a busy town,"
    "an old castle,a deep wood,a garden full of flowers,a warm barn,a hut on a snowy mountain,a cottage by the sea,a hollow oak tree,"
    "a mossy cave,a mill by the stream,a house with a red roof,a hut on a windy beach,an old lighthouse on a rock"
).split(",")
SPOTS = (
    "the river,the old bridge,the big oak tree,the stone well,the blackberry bushes,the windmill,the tall grass,the pond,"
    "the apple orchard,the hay barn,the garden gate,the sandy shore,the hill path,the market square,the wooden fence,"
    "the pine trees,the quiet lane,the mossy log,the flower beds,the wheat field"
).split(",")
HIDING = (
    "under a pile of leaves,behind a round stone,in a hollow log,under the bed,in a bird's nest,at the bottom of the basket,"
    "beside the well,between two roots,on top of the hedge,behind the curtain,under the bridge,in the tall grass,"
    "in the old boot by the door,under a mushroom,in the pocket of a coat"
).split(",")
WEATHERS = "sunny,rainy,windy,snowy,foggy,cloudy,stormy,warm,cold,frosty".split(",")
SEASONS = ("spring", "summer", "autumn", "winter")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    "January February March April May June July August September October November December".split()
)
NUMBER_WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
).split()
CITIES = (
    "Paris,London,Rome,Berlin,Madrid,Oslo,Lisbon,Vienna,Dublin,Prague,Athens,Cairo,Tokyo,Delhi,Lima,Boston,Chicago,Toronto,"
    "Sydney,New York,Seattle,Denver,Nairobi,Accra,Seoul,Zürich,München,São Paulo,Málaga,San Diego,Helsinki,Warsaw,Kyoto,Quito,"
    "Amsterdam,Brussels,Geneva,Hamburg,Milan,Naples,Istanbul,Mumbai,Singapore,Beijing,Mexico City,Los Angeles,Austin,Miami"
).split(",")
# fmt: on

_ONSETS = "b br c ch d dr f fl g gr h j k kr l m n p pr qu r s sh st t th tr v w y z".split()
_VOWELS = "a e i o u ai ea ee ia o oa ou a e i".split()
_CODAS = "l n r m s t d k nd rn ll ss th ck ston ville ford dale by ham wick burg".split()


def invented_name(rng: random.Random) -> str:
    """A word nobody has seen, so that the model learns to copy and not to guess."""
    syllables = "".join(rng.choice(_ONSETS) + rng.choice(_VOWELS) for _ in range(rng.randint(1, 2)))
    return (syllables + rng.choice(_CODAS)).capitalize()
