"""Mixes all writers into an endless, seeded stream of documents, and holds some of them out."""

import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pebble import arithmetic, chat, dialogue, json_answers, knowledge, tool_calls
from pebble.conversation import Writer, render
from pebble.drill import copying_page
from pebble.stories import story

BEGIN, END = "<|begin|>", "<|end|>"


@dataclass(frozen=True)
class Document:
    """One training text, special tokens included, and the kind it is counted under."""

    kind: str
    text: str


def _talk(writer: Writer) -> Callable[[random.Random], str]:
    return lambda rng: render(writer(rng))


def _page(writer: Callable[[random.Random], str]) -> Callable[[random.Random], str]:
    return lambda rng: f"{BEGIN}{writer(rng)}{END}"


# kind, writer, share of documents
_WRITERS: tuple[tuple[str, Callable[[random.Random], str], float], ...] = (
    ("story", _page(story), 18),
    ("chat", _talk(chat.small_talk), 7),
    ("chat", _talk(chat.feelings), 2),
    ("chat", _talk(chat.story_on_request), 9),
    ("chat", _talk(chat.poem), 3),
    ("chat", _talk(chat.listing), 3),
    ("chat", _talk(chat.repeat), 4),
    ("chat", _talk(chat.echo), 8),
    ("chat", _talk(chat.riddle), 2),
    ("chat", _talk(dialogue.mixed), 7),
    ("chat", _talk(dialogue.senses), 1.5),
    ("chat", _talk(dialogue.jokes_and_tests), 2),
    ("knowledge", _talk(dialogue.yes_or_no), 2),
    ("knowledge", _talk(dialogue.capitals), 1.5),
    ("knowledge", _page(dialogue.page), 3),
    ("knowledge", _talk(knowledge.facts), 14),
    ("knowledge", _talk(knowledge.one_word), 2.5),
    ("knowledge", _talk(knowledge.with_suffix), 1.5),
    ("knowledge", _talk(knowledge.renamed), 1.5),
    ("knowledge", _talk(knowledge.memory), 5),
    ("knowledge", _talk(knowledge.unknown_memory), 0.5),
    ("knowledge", _talk(knowledge.refusal), 3.5),
    ("arithmetic", _talk(arithmetic.bare_sum), 18),
    ("arithmetic", _talk(arithmetic.result_only), 1.5),
    ("arithmetic", _talk(arithmetic.big_sum), 1),
    ("arithmetic", _talk(arithmetic.word_problem), 4),
    ("arithmetic", _talk(arithmetic.counting), 2),
    ("arithmetic", _talk(arithmetic.comparing), 2),
    ("arithmetic", _page(arithmetic.table), 4),
    ("json", _talk(json_answers.extraction), 5),
    ("json", _talk(json_answers.invention), 1.5),
    ("json", _talk(json_answers.sums), 1),
    ("tools", _talk(tool_calls.tool_call), 13),
    ("tools", _talk(tool_calls.two_calls), 1),
    ("tools", _talk(tool_calls.needless_tools), 2),
    ("tools", _talk(tool_calls.missing_tool), 1),
)
_SHARES = [share for _, _, share in _WRITERS]
KINDS = tuple(dict.fromkeys(kind for kind, _, _ in _WRITERS))


def documents(seed: int) -> Iterator[Document]:
    """The stream of one seed; it never ends."""
    rng = random.Random(seed)
    while True:
        kind, write, _ = rng.choices(_WRITERS, _SHARES)[0]
        yield Document(kind, write(rng))


def drills(seed: int) -> Iterator[Document]:
    """Pages to start a training run with; they are of no kind that is held out."""
    rng = random.Random(seed)
    while True:
        yield Document("drill", _page(copying_page)(rng))


def split(seed: int, num_train: int, num_held_out: int) -> tuple[list[Document], list[Document]]:
    """Training documents, and held-out ones of another seed of which none is word for word among the first."""
    train = [document for document, _ in zip(documents(seed), range(num_train), strict=False)]
    seen = {document.text for document in train}
    fresh = (document for document in documents(seed + 1_000_003) if document.text not in seen)
    return train, [document for document, _ in zip(fresh, range(num_held_out), strict=False)]


_MARKUP = re.compile(r"<\|?/?\w+\|?>")


def sentences(text: str) -> set[str]:
    """The distinct sentences of a document, markup removed."""
    return {
        part.strip()
        for part in re.split(r"(?<=[.!?])\s+|\n", _MARKUP.sub("\n", text))
        if part.strip()
    }
