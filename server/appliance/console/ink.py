"""Colours text where a terminal shows it, and removes control characters from foreign text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import TextIO

SHORT_HASH_LENGTH = 12
# Escape sequences in a model's answer could rewrite the screen; line breaks and tabs may pass.
_CONTROLS = {
    code: None for code in (*range(0x20), 0x7F, *range(0x80, 0xA0)) if chr(code) not in "\n\t"
}


def printable(text: str) -> str:
    return text.translate(_CONTROLS)


def short_hash(digest: object) -> str:
    return "none" if digest is None else str(digest).rpartition(":")[2][:SHORT_HASH_LENGTH]


@dataclass(frozen=True, slots=True)
class Ink:
    """Writes bold, dim and coloured text where the terminal shows it, plain text elsewhere."""

    is_coloured: bool

    @classmethod
    def of(cls, stream: TextIO, environ: Mapping[str, str]) -> Ink:
        return cls(stream.isatty() and not environ.get("NO_COLOR"))

    def bold(self, text: str) -> str:
        return self._sgr("1", text)

    def dim(self, text: str) -> str:
        return self._sgr("2", text)

    def accent(self, text: str) -> str:
        return self._sgr("36", text)

    def warning(self, text: str) -> str:
        return self._sgr("33", text)

    def _sgr(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self.is_coloured else text
