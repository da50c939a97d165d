"""The tools the generator offers: names, descriptions, parameters, how users ask for them and what comes back."""

import random
from collections.abc import Callable
from dataclasses import dataclass

from pebble import words
from pebble.words import invented_name

Draw = Callable[[random.Random], object]


@dataclass(frozen=True)
class Parameter:
    """One argument: names it may go by, its JSON type, what it says, and how a value is drawn."""

    names: tuple[str, ...]
    kind: str
    description: str
    draw: Draw


@dataclass(frozen=True)
class Tool:
    """A tool; asks name their values `<0>`, `<1>`; the result and the closing sentence also know `<r>`."""

    names: tuple[str, ...]
    description: str
    parameters: tuple[Parameter, ...]
    asks: tuple[str, ...]
    result: tuple[str, Draw]
    answer: str
    option: Parameter | None = None


def _city(rng: random.Random) -> str:
    return rng.choice(words.CITIES) if rng.random() < 0.6 else invented_name(rng)


def _name(rng: random.Random) -> str:
    return (
        rng.choice(words.NAMES_HE + words.NAMES_SHE) if rng.random() < 0.75 else invented_name(rng)
    )


def _number(rng: random.Random) -> int:
    return rng.randint(0, 20 if rng.random() < 0.5 else 400)


def _small(rng: random.Random) -> int:
    return rng.randint(1, 60)


def _text(rng: random.Random) -> str:
    return rng.choice(
        (
            f"see you at {rng.randint(1, 12)}",
            f"I am by {rng.choice(words.SPOTS)}",
            f"happy birthday {_name(rng)}",
            "I will be late",
            f"bring the {rng.choice(words.BRIGHT)} {rng.choice(words.OBJECTS)}",
            f"the {rng.choice(words.FOODS)} is ready",
            "good night",
            f"I found your {rng.choice(words.OBJECTS)}",
            f"meet me in {_city(rng)}",
            "call me back",
            f"I have {_small(rng)} {rng.choice(words.THINGS)}",
        )
    )


def _topic(rng: random.Random) -> str:
    return rng.choice(
        (
            rng.choice(words.STORY_ANIMALS),
            rng.choice(words.FOODS),
            rng.choice(words.OBJECTS),
            invented_name(rng).lower(),
            f"{rng.choice(words.COLOURS)} {rng.choice(words.OBJECTS)}",
            f"the {rng.choice(words.TRAITS)} {rng.choice(words.STORY_ANIMALS)}",
        )
    )


def _room(rng: random.Random) -> str:
    return rng.choice(
        "kitchen,bedroom,hall,garden,bathroom,living room,barn,cellar,office,attic".split(",")
    )


def _item(rng: random.Random) -> str:
    return rng.choice(
        (
            rng.choice(words.THINGS),
            rng.choice(words.FOODS),
            rng.choice(words.FRUITS),
            "milk",
            "flour",
            "a new " + rng.choice(words.OBJECTS),
        )
    )


def _song(rng: random.Random) -> str:
    return rng.choice(
        (
            f"{rng.choice(words.BRIGHT).capitalize()} {rng.choice(words.OBJECTS).capitalize()}",
            f"Song of {invented_name(rng)}",
            f"The {rng.choice(words.STORY_ANIMALS).capitalize()} Dance",
            f"{_name(rng)}'s Waltz",
            f"Goodnight {_name(rng)}",
        )
    )


def _one_of(*values: object) -> Draw:
    return lambda rng: rng.choice(values)


# fmt: off
_CITY = Parameter(("city", "city", "location", "place", "town"), "string", "Name of the city / The city / The city and state, e.g. San Francisco, CA / City name / Where", _city)
_A = Parameter(("a", "x", "first", "left"), "number", "First number", _number)
_B = Parameter(("b", "y", "second", "right"), "number", "Second number", _number)
_PERSON = Parameter(("to", "name", "person", "recipient", "contact"), "string", "Who it is for", _name)
_ITEM = Parameter(("item", "thing", "entry", "product"), "string", "What to add", _item)
_ROOM = Parameter(("room", "place", "location"), "string", "Which room", _room)
_UNIT = Parameter(("unit", "units"), "string", "Unit of the temperature", _one_of("celsius", "fahrenheit"))
_DONE = ("status", _one_of("ok", "done"))

TOOLS = (
    Tool(("get_weather", "weather", "get_current_weather", "fetch_weather", "weather_in"), "Get the weather in a city", (_CITY,),
         ("What is the weather in <0>?", "What's the weather like in <0>?", "How is the weather in <0> today?", "Is it raining in <0>?", "Weather in <0>?",
          "Tell me the weather in <0>.", "Do I need an umbrella in <0>?", "Is it cold in <0>?", "I am going to <0>. How is the weather?", "Can you check the weather in <0>?",
          "What's the weather like in <0> today?", "What is it like outside in <0>?", "Will it rain in <0> tomorrow?", "Is it sunny in <0>?", "How's the weather in <0>?"),
         ("weather", _one_of(*words.WEATHERS)), "It is <r> in <0>.", _UNIT),
    Tool(("get_temperature", "temperature", "read_temperature"), "Get the temperature of a city in degrees", (_CITY,),
         ("How warm is it in <0>?", "What is the temperature in <0>?", "How many degrees is it in <0>?", "Temperature in <0>, please.", "How hot is it in <0>?"),
         ("degrees", _small), "It is <r> degrees in <0>.", _UNIT),
    Tool(("get_time", "current_time", "get_current_time", "clock", "time_in"), "Get the current time in a city", (_CITY,),
         ("What time is it in <0>?", "What time is it in <0> right now?", "Can you tell me the time in <0>?", "Tell me the time in <0>.", "How late is it in <0>?", "Time in <0>?", "What is the time in <0> now?"),
         ("time", lambda rng: f"{rng.randint(0, 23):02d}:{rng.randint(0, 59):02d}"), "It is <r> in <0>."),
    Tool(("add", "add_numbers", "sum", "plus"), "Add two numbers", (_A, _B),
         ("What is <0> + <1>?", "Add <0> and <1>.", "How much is <0> plus <1>?", "Calculate <0> + <1>.", "Sum of <0> and <1>?", "<0>+<1>", "Use the tool to add <0> and <1>.", "Can you add <0> and <1>?", "What do you get if you add <0> to <1>?"),
         ("result", _number), "The result is <r>."),
    Tool(("subtract", "minus", "subtract_numbers"), "Subtract the second number from the first", (_A, _B),
         ("What is <0> - <1>?", "How much is <0> minus <1>?", "Calculate <0> - <1>.", "What is <0> take away <1>?"), ("result", _number), "The result is <r>."),
    Tool(("multiply", "times", "multiply_numbers", "product"), "Multiply two numbers", (_A, _B),
         ("What is <0> * <1>?", "Multiply <0> by <1>.", "How much is <0> times <1>?", "Calculate <0> x <1>."), ("result", _number), "The result is <r>."),
    Tool(("set_timer", "start_timer", "timer", "countdown"), "Start a timer", (Parameter(("minutes", "duration_minutes", "length", "time"), "integer", "How many minutes", _small),),
         ("Set a timer for <0> minutes.", "Start a <0> minute timer.", "Wake me in <0> minutes.", "Timer for <0> minutes, please.", "Tell me when <0> minutes are over."),
         _DONE, "The timer is set for <0> minutes."),
    Tool(("set_alarm", "alarm", "create_alarm"), "Set an alarm for a time of day", (Parameter(("time", "at", "hour"), "string", "Time of day like 07:30", lambda rng: f"{rng.randint(0, 23):02d}:{rng.choice((0, 15, 30, 45)):02d}"),),
         ("Set an alarm for <0>.", "Wake me up at <0>.", "Alarm at <0>, please.", "I want to get up at <0>."), _DONE, "Your alarm is set for <0>."),
    Tool(("send_message", "send_text", "message", "write_message"), "Send a message to a person", (_PERSON, Parameter(("text", "message", "body", "content"), "string", "What to say", _text)),
         ("Send <0> a message: <1>", "Tell <0>: <1>", "Write to <0> that <1>.", "Message <0>: <1>", "Please send the message '<1>' to <0>.", "Send a message to <0> saying <1>"),
         _DONE, "I sent your message to <0>."),
    Tool(("call_person", "phone", "make_call", "call"), "Call a person on the phone", (_PERSON,),
         ("Call <0>.", "Please phone <0>.", "I want to talk to <0>.", "Ring <0> for me.", "Give <0> a call."), _DONE, "I am calling <0>."),
    Tool(("search_books", "find_book", "book_search", "search_library"), "Search the library for books", (Parameter(("query", "topic", "title", "subject"), "string", "What the book is about", _topic),),
         ("Find a book about <0>.", "Search for books about <0>.", "Is there a book on <0>?", "I want to read about <0>.", "Look for a book about <0>."),
         ("title", _song), "I found the book \"<r>\"."),
    Tool(("search_web", "web_search", "search", "look_up"), "Search the web", (Parameter(("query", "q", "text", "terms"), "string", "Search words", _topic),),
         ("Search the web for <0>.", "Look up <0>.", "Search for <0>.", "Find something about <0> on the web.", "Google <0>."),
         ("summary", lambda rng: f"A page about {rng.choice(words.THINGS)}"), "I found this: <r>."),
    Tool(("turn_on_light", "light_on", "switch_on_light"), "Turn on the light in a room", (_ROOM,),
         ("Turn on the light in the <0>.", "Light on in the <0>, please.", "It is dark in the <0>.", "Switch the <0> light on."), _DONE, "The light in the <0> is on."),
    Tool(("turn_off_light", "light_off", "switch_off_light"), "Turn off the light in a room", (_ROOM,),
         ("Turn off the light in the <0>.", "Light off in the <0>, please.", "Switch the <0> light off.", "The <0> is too bright."), _DONE, "The light in the <0> is off."),
    Tool(("set_light_colour", "light_color", "set_lamp"), "Change the colour of a lamp", (_ROOM, Parameter(("colour", "color"), "string", "Colour of the light", _one_of(*words.COLOURS))),
         ("Make the light in the <0> <1>.", "Change the <0> light to <1>.", "I want <1> light in the <0>."), _DONE, "The light in the <0> is now <1>."),
    Tool(("play_song", "play_music", "play", "start_song"), "Play a song", (Parameter(("title", "song", "name", "track"), "string", "Title of the song", _song),),
         ("Play <0>.", "Play the song <0>.", "I want to hear <0>.", "Put on <0>, please.", "Can you play <0>?"), _DONE, "Now playing <0>."),
    Tool(("add_to_list", "add_item", "shopping_list_add", "list_add"), "Add something to the shopping list", (_ITEM,),
         ("Put <0> on my shopping list.", "Add <0> to the list.", "I need to buy <0>.", "We need <0>. Put it on the list."), _DONE, "I put <0> on your list."),
    Tool(("create_note", "save_note", "remember", "write_note"), "Save a note", (Parameter(("text", "note", "content"), "string", "Text of the note", _text),),
         ("Write a note: <0>", "Save this note: <0>", "Note that <0>.", "Remember this: <0>"), _DONE, "I saved your note."),
    Tool(("roll_dice", "dice", "throw_dice"), "Roll dice", (Parameter(("count", "number", "dice"), "integer", "How many dice", lambda rng: rng.randint(1, 9)),),
         ("Roll <0> dice.", "Throw <0> dice for me.", "Please roll <0> dice."), ("total", _small), "The dice show <r>."),
    Tool(("translate", "translate_text", "translator"), "Translate text into another language", (Parameter(("text", "phrase", "words"), "string", "Text to translate", _text), Parameter(("language", "target", "to"), "string", "Target language", _one_of("French", "German", "Spanish", "Italian", "Dutch", "Polish"))),
         ("Translate '<0>' into <1>.", "How do you say '<0>' in <1>?", "Say '<0>' in <1>."), ("text", invented_name), "In <1> it is: <r>."),
    Tool(("book_table", "reserve_table", "book_restaurant"), "Book a table at a restaurant", (Parameter(("restaurant", "name", "place"), "string", "Name of the restaurant", invented_name), Parameter(("people", "guests", "seats"), "integer", "How many people", lambda rng: rng.randint(1, 12))),
         ("Book a table at <0> for <1> people.", "Reserve a table for <1> at <0>.", "We are <1> people and want to eat at <0>."), _DONE, "Your table at <0> for <1> people is booked."),
    Tool(("get_price", "price_of", "check_price"), "Get the price of a product", (Parameter(("product", "item", "thing"), "string", "Name of the product", _item),),
         ("What does <0> cost?", "How much is <0>?", "Price of <0>?", "Tell me the price of <0>."), ("price", _small), "The price is <r>."),
    Tool(("get_distance", "distance", "how_far"), "Get the distance between two cities", (Parameter(("from", "start", "origin"), "string", "First city", _city), Parameter(("to", "end", "destination"), "string", "Second city", _city)),
         ("How far is it from <0> to <1>?", "Distance from <0> to <1>?", "How many kilometers from <0> to <1>?"), ("kilometers", _number), "It is <r> kilometers from <0> to <1>."),
    Tool(("feed_pet", "feed_animal", "feed"), "Feed an animal", (Parameter(("animal", "pet", "kind"), "string", "Which animal", _one_of(*words.STORY_ANIMALS)), Parameter(("food", "meal"), "string", "What it gets", _one_of(*words.FOODS))),
         ("Give the <0> some <1>.", "Feed <1> to the <0>.", "The <0> wants <1>."), _DONE, "The <0> got some <1>."),
    Tool(("set_temperature", "heating", "set_thermostat"), "Set the heating of a room in degrees", (_ROOM, Parameter(("degrees", "temperature", "value"), "integer", "Degrees", lambda rng: rng.randint(10, 30))),
         ("Set the <0> to <1> degrees.", "Heat the <0> to <1> degrees.", "Make it <1> degrees in the <0>."), _DONE, "The <0> is set to <1> degrees."),
    Tool(("get_user", "find_user", "user_info", "get_customer"), "Get the record of a user by id", (Parameter(("id", "user_id", "number"), "integer", "Id of the user", lambda rng: rng.randint(1, 9999)),),
         ("Who is user <0>?", "Show me user <0>.", "Get the record of user <0>.", "Find the user with id <0>."), ("name", _name), "User <0> is <r>."),
    Tool(("open_door", "unlock_door", "open_gate"), "Open a door", (_ROOM,), ("Open the door of the <0>.", "Unlock the <0> door.", "Let me into the <0>."), _DONE, "The door of the <0> is open."),
    Tool(("tell_joke", "get_joke", "joke"), "Tell a joke", (), ("Tell me a joke.", "Make me laugh.", "Do you know a joke?"), ("joke", _one_of("Why did the broom come late? It swept in.", "What did the candle say? I am going out tonight.")), "<r>"),
    Tool(("get_date", "today", "current_date"), "Get the date of today", (), ("What is the date today?", "What day is it today?", "Which date is it?"), ("date", lambda rng: f"{rng.choice(words.DAYS)}, {rng.randint(1, 28)} {rng.choice(words.MONTHS)}"), "Today is <r>."),
)
# fmt: on
