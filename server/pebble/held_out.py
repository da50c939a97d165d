"""Measures a model on held-out documents: mean loss per token, by kind of document."""

import math
from collections.abc import Iterable, Mapping

import torch
from tokenizers import Tokenizer

from pebble.corpus import BEGIN, KINDS, Document
from pebble.llama import IGNORED, Llama, apart
from pebble.packing import pack
from pebble.tokenizer import token_id

_ROW_LENGTH = 512


def held_out_losses(
    model: Llama, tokenizer: Tokenizer, documents: Iterable[Document]
) -> Mapping[str, float]:
    """Nats per token for every kind, and under `all` over every document."""
    by_kind: dict[str, list[str]] = {kind: [] for kind in KINDS}
    for document in documents:
        by_kind[document.kind].append(document.text)
    sums = {
        kind: _sum_of_losses(model, tokenizer, texts) for kind, texts in by_kind.items() if texts
    }
    losses = {kind: total / count for kind, (total, count) in sums.items()}
    return losses | {
        "all": sum(total for total, _ in sums.values()) / sum(count for _, count in sums.values())
    }


def perplexity(loss: float) -> float:
    """The number of equally likely tokens that a loss amounts to."""
    return math.exp(loss)


@torch.no_grad()
def _sum_of_losses(model: Llama, tokenizer: Tokenizer, texts: list[str]) -> tuple[float, int]:
    tokens, targets = pack(tokenizer, texts, _ROW_LENGTH)
    total, count = 0.0, 0
    for start in range(0, len(tokens), 8):
        batch, wanted = (
            torch.from_numpy(rows[start : start + 8]).long() for rows in (tokens, targets)
        )
        num_wanted = int((wanted != IGNORED).sum())
        mask = apart(batch, token_id(tokenizer, BEGIN))
        total += float(model.loss(batch, wanted, mask)) * num_wanted
        count += num_wanted
    return total, count
