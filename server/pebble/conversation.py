"""Conversations as messages, rendered to text by the very template that ships with the model."""

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from jinja2.sandbox import ImmutableSandboxedEnvironment

JsonObject = Mapping[str, object]
Message = dict[str, object]

TEMPLATE_PATH = Path(__file__).parent.parent / "appliance" / "embedded" / "chat_template.jinja"


@dataclass(frozen=True)
class Conversation:
    """Messages from first to last and the tools that were offered."""

    messages: Sequence[Message]
    tools: Sequence[JsonObject] = field(default=())


Writer = Callable[[random.Random], Conversation]


def _refuse(message: str) -> NoReturn:
    raise ValueError(message)


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    environment.globals["raise_exception"] = _refuse
    return environment


_TEMPLATE = _environment().from_string(TEMPLATE_PATH.read_text(encoding="utf-8"))


def render(conversation: Conversation, *, is_open: bool = False) -> str:
    """The text of a conversation; an open one ends where the assistant is to go on."""
    return _TEMPLATE.render(
        messages=conversation.messages, tools=conversation.tools, add_generation_prompt=is_open
    )


def say(*turns: str, system: str | None = None) -> Conversation:
    """Turns that alternate between user and assistant, under an optional system line."""
    messages: list[Message] = [] if system is None else [{"role": "system", "content": system}]
    for number, text in enumerate(turns):
        messages.append({"role": "assistant" if number % 2 else "user", "content": text})
    return Conversation(messages)
