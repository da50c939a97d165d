"""Packs whole documents into rows of one length, so that every row starts where a document starts."""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from pebble.corpus import END
from pebble.llama import IGNORED
from pebble.tokenizer import PAD, token_id

Rows = NDArray[np.int16]
_NUM_OPEN_ROWS = 64
# What the model reads and never writes gets no loss: system turns with their tool lists, and tool results.
_READ_ONLY_ROLES = ("<|system|>", "<|tool|>")


def loss_mask(ids: Sequence[int], read_only_ids: frozenset[int], end_id: int) -> list[bool]:
    """True where a token is a target."""
    mask, is_read_only = [], False
    for token in ids:
        is_read_only = is_read_only or token in read_only_ids
        mask.append(not is_read_only)
        is_read_only = is_read_only and token != end_id
    return mask


class Packer:
    """Fills rows first-fit over a few open ones; documents longer than a row are cut."""

    def __init__(self, tokenizer: Tokenizer, row_length: int) -> None:
        self.row_length = row_length
        self.pad_id, self.end_id = token_id(tokenizer, PAD), token_id(tokenizer, END)
        self.read_only_ids = frozenset(token_id(tokenizer, role) for role in _READ_ONLY_ROLES)
        self._open: list[tuple[list[int], list[int]]] = []
        self._closed: list[tuple[list[int], list[int]]] = []

    def add(self, ids: Sequence[int]) -> None:
        """Places one document; its targets are its own tokens shifted, never the first of the next."""
        ids = ids[: self.row_length]
        mask = loss_mask(ids, self.read_only_ids, self.end_id)
        targets = [
            token if kept else IGNORED for token, kept in zip(ids[1:], mask[1:], strict=True)
        ] + [IGNORED]
        row = next((row for row in self._open if len(row[0]) + len(ids) <= self.row_length), None)
        if row is None:
            row = ([], [])
            self._open.append(row)
        row[0].extend(ids)
        row[1].extend(targets)
        if len(self._open) > _NUM_OPEN_ROWS:
            self._close(max(self._open, key=lambda candidate: len(candidate[0])))

    def _close(self, row: tuple[list[int], list[int]]) -> None:
        self._open.remove(row)
        missing = self.row_length - len(row[0])
        self._closed.append((row[0] + [self.pad_id] * missing, row[1] + [IGNORED] * missing))

    def rows(self) -> tuple[Rows, Rows]:
        """Tokens and targets `[N, T]` of everything added so far."""
        for row in list(self._open):
            self._close(row)
        tokens, targets = zip(*self._closed, strict=True)
        return np.array(tokens, dtype=np.int16), np.array(targets, dtype=np.int16)


def pack(tokenizer: Tokenizer, texts: Iterable[str], row_length: int) -> tuple[Rows, Rows]:
    """Tokens and targets of all texts."""
    packer = Packer(tokenizer, row_length)
    for encoding in tokenizer.encode_batch_fast(list(texts), add_special_tokens=False):
        packer.add(encoding.ids)
    return packer.rows()
