"""Lets a model write: one completion, greedy or at a temperature, the same for the same seed."""

import torch
from tokenizers import Tokenizer
from torch import Tensor

from pebble.conversation import Conversation, render
from pebble.corpus import BEGIN, END
from pebble.llama import Llama
from pebble.tokenizer import token_id


@torch.no_grad()
def complete(
    model: Llama,
    tokenizer: Tokenizer,
    prompt: str,
    *,
    temperature: float = 0.0,
    seed: int = 0,
    max_tokens: int = 250,
) -> str:
    """What follows a prompt, markup included, up to the end token; special tokens in the prompt count as such."""
    ids = tokenizer.encode(prompt, add_special_tokens=False).ids
    generator = torch.Generator().manual_seed(seed)
    end_id = token_id(tokenizer, END)
    written: list[int] = []
    for _ in range(max_tokens):
        token = _choose(model(torch.tensor([ids + written]))[0, -1], temperature, generator)
        written.append(token)
        if token == end_id:
            break
    return tokenizer.decode(written, skip_special_tokens=False)


def _choose(logits: Tensor, temperature: float, generator: torch.Generator) -> int:
    if temperature == 0.0:
        return int(logits.argmax())
    return int(
        torch.multinomial(torch.softmax(logits / temperature, dim=-1), 1, generator=generator)
    )


def continue_text(
    model: Llama, tokenizer: Tokenizer, text: str, *, temperature: float = 0.0, seed: int = 0
) -> str:
    """A plain text and how it goes on; without the end token if it did not end."""
    return text + complete(model, tokenizer, BEGIN + text, temperature=temperature, seed=seed)


def answer(
    model: Llama,
    tokenizer: Tokenizer,
    conversation: Conversation,
    *,
    temperature: float = 0.0,
    seed: int = 0,
    max_tokens: int = 250,
) -> str:
    """The assistant's next turn."""
    prompt = render(conversation, is_open=True)
    text = complete(
        model, tokenizer, prompt, temperature=temperature, seed=seed, max_tokens=max_tokens
    )
    return text.removesuffix(END)
