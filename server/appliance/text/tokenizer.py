"""Converts strings to token ids and back with the `tokenizers` library, exact about bytes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Self

import tokenizers

from appliance.errors import InvalidRequest, ModelRefused
from appliance.text.token_bytes import token_bytes_of

if TYPE_CHECKING:
    from pathlib import Path

# A place that no token may span. A chat template's text has one inside each control token that a
# user wrote, so that it is read as plain text. Unicode keeps U+FDD0 for such private use; in any
# other text `encode` drops it.
BOUNDARY = "\ufdd0"


class Tokenizer:
    """One model's vocabulary. Every method may be called from any thread at any time."""

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        backend.no_truncation()
        backend.no_padding()
        added = backend.get_added_tokens_decoder()
        self.vocab_size = max(backend.get_vocab_size(), *(token_id + 1 for token_id in added), 0)
        self.special_ids = frozenset(token_id for token_id, token in added.items() if token.special)
        # Every added token and whether it is special, that is: left out of decoded text.
        self.added_tokens: Mapping[str, bool] = {t.content: t.special for t in added.values()}
        self._added_ids = {token.content: token_id for token_id, token in added.items()}
        _match_in_raw_text(backend, added.values())
        backend.add_special_tokens([tokenizers.AddedToken(BOUNDARY, normalized=False)])
        self._boundary_id = backend.token_to_id(BOUNDARY)
        self._backend = backend
        self._bytes = token_bytes_of(backend)
        self._rest: dict[int, bytes] = {}

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Read a tokenizer.json."""
        try:
            backend = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare Exception
            raise ModelRefused(f"{path} is not a readable tokenizer: {error}") from error
        return cls(backend)

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Return the ids of `text`; control tokens written in it are recognised.

        Large texts take time (about 0.2 s a megabyte) but let other threads run.
        """
        # The batch call is the one that releases the interpreter lock; "fast" leaves out offsets.
        try:
            [encoding] = self._backend.encode_batch_fast(
                [text], add_special_tokens=add_special_tokens
            )
        except TypeError:
            raise InvalidRequest("The text holds half a surrogate pair: no Unicode.") from None
        ids: list[int] = encoding.ids
        if BOUNDARY in text:
            return [token_id for token_id in ids if token_id != self._boundary_id]
        return ids

    def count(self, text: str, *, add_special_tokens: bool) -> int:
        return len(self.encode(text, add_special_tokens=add_special_tokens))

    def decode(self, ids: Iterable[int], *, skip_special_tokens: bool) -> str:
        """Return the text of `ids` as one whole; what is not UTF-8 becomes U+FFFD.

        Agrees with the library but in one place: broken UTF-8 among SentencePiece byte tokens
        does not take the good characters before it along.
        """
        skipped = self.special_ids if skip_special_tokens else frozenset()
        kept = [token_id for token_id in ids if token_id not in skipped]
        if not kept:
            return ""
        pieces = [self.first_token_bytes(kept[0]), *map(self.token_bytes, kept[1:])]
        text = b"".join(pieces).decode("utf-8", "replace")
        num_spaces = len(text) - len(text.lstrip(" "))
        return text[min(num_spaces, self.num_leading_spaces) :]

    def token_bytes(self, token_id: int) -> bytes:
        """Return the exact bytes a token adds to a text; none for an id without a token."""
        known = self._rest.get(token_id)
        if known is None:
            token = self._stored(token_id)
            known = self._rest[token_id] = b"" if token is None else self._bytes.rest(token)
        return known

    def token_text(self, token_id: int) -> str:
        """Return the text of one token by itself; a cut character shows as U+FFFD."""
        return self.token_bytes(token_id).decode("utf-8", "replace")

    def token_id(self, text: str) -> int | None:
        """Return the id of the added token written `text`."""
        return self._added_ids.get(text)

    def first_token_bytes(self, token_id: int) -> bytes:
        """Return the bytes of a token that opens a text: some decoders drop a space there."""
        token = self._stored(token_id)
        return b"" if token is None else self._bytes.first(token)

    @property
    def num_leading_spaces(self) -> int:
        """Return how many spaces at most a decoded text loses at its start."""
        return self._bytes.num_leading_spaces

    def _stored(self, token_id: int) -> str | None:
        if not 0 <= token_id < self.vocab_size:
            return None
        token: str | None = self._backend.id_to_token(token_id)
        return token


def _match_in_raw_text(
    backend: tokenizers.Tokenizer, added: Iterable[tokenizers.AddedToken]
) -> None:
    """Look for control tokens before normalisation, so that no look-alike turns into one."""
    if backend.normalizer is None:
        return
    for token in added:
        is_unchanged = backend.normalizer.normalize_str(token.content) == token.content
        if token.special and token.normalized and is_unchanged:
            raw = tokenizers.AddedToken(
                token.content,
                single_word=token.single_word,
                lstrip=token.lstrip,
                rstrip=token.rstrip,
                normalized=False,
            )
            backend.add_special_tokens([raw])
