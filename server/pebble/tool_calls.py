"""Writes conversations with tools: the right call among distractors, results told in a sentence, and no call where none is needed."""

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pebble.chat import small_talk
from pebble.conversation import Conversation, JsonObject, Message
from pebble.grammar import roughen
from pebble.knowledge import facts
from pebble.toolbox import TOOLS, Parameter, Tool
from pebble.words import invented_name

_SYSTEMS = (
    "You are a helpful assistant.",
    "Use the tools when they help.",
    "You are Pebble, a helpful assistant.",
    "Be short.",
    "You are a home assistant.",
    "Call a tool if you need one.",
)


def _property(rng: random.Random, parameter: Parameter) -> JsonObject:
    entry: dict[str, object] = {"type": parameter.kind}
    if rng.random() < 0.55:
        entry["description"] = rng.choice(parameter.description.split(" / "))
    return entry


def _schema(
    rng: random.Random,
    parameters: Sequence[tuple[str, Parameter]],
    option: tuple[str, Parameter] | None,
) -> JsonObject:
    properties = {name: _property(rng, parameter) for name, parameter in parameters}
    if option is not None:
        properties[option[0]] = {"type": "string", "enum": ["celsius", "fahrenheit"]}
    parts: list[tuple[str, object]] = [
        ("type", "object"),
        ("properties", properties),
        ("required", [name for name, _ in parameters]),
    ]
    if rng.random() < 0.25:
        parts.sort(key=lambda part: part[0])
    elif rng.random() < 0.2:
        parts.append(("additionalProperties", False))
    return dict(parts)


def _generic_tool(rng: random.Random) -> Tool:
    """A tool nobody has seen: it does something to something, so name and argument must be read, not remembered."""
    verb = rng.choice("get find check show open start stop read update delete list count".split())
    noun = rng.choice(
        "order invoice ticket room file parcel garden ship train letter recipe map boat horse lamp door page score".split()
    )
    key = rng.choice(("id", "name", "number", "code", f"{noun}_id", f"{noun}_name"))
    is_number = key in ("number", "id") and rng.random() < 0.7
    draw = (lambda inner: inner.randint(1, 9999)) if is_number else invented_name
    parameter = Parameter(
        (key,),
        "integer" if is_number else "string",
        f"{key.replace('_', ' ').capitalize()} of the {noun}",
        draw,
    )
    asks = (
        f"{verb.capitalize()} {noun} <0>.",
        f"Please {verb} the {noun} <0>.",
        f"Can you {verb} {noun} <0>?",
        f"{verb.capitalize()} the {noun} called <0>",
    )
    name = rng.choice((f"{verb}_{noun}", f"{noun}_{verb}", f"{verb}{noun.capitalize()}"))
    return Tool(
        (name,),
        f"{verb.capitalize()} {rng.choice(('a', 'the', 'one'))} {noun}",
        (parameter,),
        asks,
        ("status", lambda inner: "ok"),
        f"The {noun} <0> is done.",
    )


def _fill(text: str, values: Sequence[object], result: object = "") -> str:
    for at, value in enumerate(values):
        text = text.replace(f"<{at}>", str(value))
    return text.replace("<r>", str(result))


class Offer:
    """One tool as it is offered in one conversation: a name and parameter names chosen, values drawn."""

    def __init__(self, rng: random.Random, tool: Tool) -> None:
        self.tool = tool
        self.name = rng.choice(tool.names)
        used: set[str] = set()
        self.parameters: list[tuple[str, Parameter]] = []
        for parameter in tool.parameters:
            key = rng.choice([name for name in parameter.names if name not in used])
            used.add(key)
            self.parameters.append((key, parameter))
        has_option = tool.option is not None and rng.random() < 0.4
        self.option = (
            (rng.choice(tool.option.names), tool.option) if has_option and tool.option else None
        )
        description = tool.description if rng.random() < 0.75 else f"{tool.description}."
        function = {
            "name": self.name,
            "description": description,
            "parameters": _schema(rng, self.parameters, self.option),
        }
        self.spec: JsonObject = {"type": "function", "function": function}

    def request(self, rng: random.Random) -> "Request":
        """What a user asks of this tool, and the arguments that follow from it."""
        values = [parameter.draw(rng) for _, parameter in self.parameters]
        ask = _fill(rng.choice(self.tool.asks), values)
        arguments = dict(zip((name for name, _ in self.parameters), values, strict=True))
        if self.option is not None and rng.random() < 0.4:
            name, parameter = self.option
            arguments[name] = parameter.draw(rng)
            ask = f"{ask.rstrip('.?')} in {arguments[name]}?"
        return Request(self, ask, values, arguments)


@dataclass(frozen=True)
class Request:
    """A user's wish and the call that grants it."""

    offer: Offer
    ask: str
    values: Sequence[object]
    arguments: Mapping[str, object]

    def call(self) -> JsonObject:
        """The tool call, as it stands in a message."""
        return {"function": {"name": self.offer.name, "arguments": self.arguments}}

    def result(self, rng: random.Random) -> tuple[str, str]:
        """What the tool returns, and the sentence that tells it."""
        key, draw = self.offer.tool.result
        result = draw(rng)
        content = (
            json.dumps({key: result}, ensure_ascii=False) if rng.random() < 0.7 else str(result)
        )
        return content, _fill(self.offer.tool.answer, self.values, result)


def _calling(calls: Sequence[JsonObject]) -> Message:
    return {"role": "assistant", "content": None, "tool_calls": list(calls)}


def _offers(rng: random.Random) -> list[Offer]:
    tools = rng.sample(TOOLS, rng.choice((1, 1, 2, 2, 3, 4)))
    if rng.random() < 0.3:
        tools[rng.randrange(len(tools))] = _generic_tool(rng)
    offers = [Offer(rng, tool) for tool in tools]
    return offers if len({offer.name for offer in offers}) == len(offers) else _offers(rng)


def _typed(rng: random.Random, ask: str) -> str:
    """The user's line as typed; casing stays, for arguments are copied from it."""
    roll = rng.random()
    if roll < 0.1:
        return f"{rng.choice(('Please help:', 'Hey Pebble,', 'Hi!', 'Could you help me?', 'Next:'))} {ask}"
    return ask.rstrip(".?") if roll < 0.2 else ask


def _system(rng: random.Random) -> list[Message]:
    return [{"role": "system", "content": rng.choice(_SYSTEMS)}] if rng.random() < 0.3 else []


def tool_call(rng: random.Random) -> Conversation:
    """A request, a call, its result and a closing sentence, sometimes a second request."""
    offers = _offers(rng)
    messages = _system(rng)
    for _ in range(rng.choice((1, 1, 1, 2))):
        request = rng.choice(offers).request(rng)
        content, answer = request.result(rng)
        messages += [
            {"role": "user", "content": _typed(rng, request.ask)},
            _calling([request.call()]),
        ]
        messages += [{"role": "tool", "content": content}, {"role": "assistant", "content": answer}]
    return Conversation(messages, [offer.spec for offer in offers])


def two_calls(rng: random.Random) -> Conversation:
    """Two wishes in one line are two calls in one turn."""
    offers = _offers(rng)
    one, two = rng.choice(offers).request(rng), rng.choice(offers).request(rng)
    link = rng.choice((" And ", " Then ", " Also, ", " "))
    messages = _system(rng)
    messages.append({"role": "user", "content": one.ask + link + two.ask})
    messages.append(_calling([one.call(), two.call()]))
    results = [request.result(rng) for request in (one, two)]
    messages += [{"role": "tool", "content": content} for content, _ in results]
    messages.append({"role": "assistant", "content": " ".join(answer for _, answer in results)})
    return Conversation(messages, [offer.spec for offer in offers])


def needless_tools(rng: random.Random) -> Conversation:
    """Tools are offered, the question needs none of them."""
    offers = [Offer(rng, tool) for tool in rng.sample(TOOLS, rng.choice((1, 2, 3)))]
    talk = small_talk(rng) if rng.random() < 0.5 else facts(rng)
    return Conversation(
        [*_system(rng), *(turn for turn in talk.messages if turn["role"] != "system")],
        [offer.spec for offer in offers],
    )


def missing_tool(rng: random.Random) -> Conversation:
    """None of the tools on offer can do what is asked."""
    wanted, *others = rng.sample(TOOLS[:2] + TOOLS[6:], 3)
    offers = [Offer(rng, tool) for tool in others]
    target = Offer(rng, wanted)
    names = {offer.name for offer in offers} | {
        word for offer in others for word in offer.description.lower().split()
    }
    if target.name in names or any(other.asks[0][:6] == wanted.asks[0][:6] for other in others):
        return missing_tool(rng)
    ask = target.request(rng).ask
    answer = "I am sorry, I have no tool for that."
    return Conversation(
        [
            *_system(rng),
            {"role": "user", "content": roughen(rng, ask)},
            {"role": "assistant", "content": answer},
        ],
        [o.spec for o in offers],
    )
