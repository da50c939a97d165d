"""Reads the plain facts in the head of a model card, between its first two lines of dashes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

MODEL_CARD = "README.md"
MAX_HEAD_BYTES = 64_000
_HEAD = re.compile(r"\A---\s*\n(.*?)\n---\s*$", re.DOTALL | re.MULTILINE)
_FACT = re.compile(r"^(\w+): *(\S.*?) *$", re.MULTILINE)
_PLAIN = re.compile(r"[\w.+-]{1,100}", re.ASCII)


def read_model_card(directory: Path) -> dict[str, str]:
    """Reads facts of one word each, such as license and pipeline_tag; none without a card.

    This is no YAML reader: it leaves out lists, nested facts and quoted values.
    """
    try:
        with (directory / MODEL_CARD).open("rb") as file:
            text = file.read(MAX_HEAD_BYTES).decode("utf-8", errors="replace")
    except OSError:
        return {}
    head = _HEAD.search(text)
    facts = _FACT.findall(head[1]) if head else []
    return {name: value for name, value in facts if _PLAIN.fullmatch(value)}


def read_license(directory: Path) -> str | None:
    card = read_model_card(directory)
    found = card.get("license")
    return card.get("license_name", found) if found == "other" else found
