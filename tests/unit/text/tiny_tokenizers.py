"""Two small tokenizers in the two great styles, and a third with an unusual decoder."""

from __future__ import annotations

from functools import cache

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from appliance.text.tokenizer import Tokenizer

LINES = [
    "Once upon a time there was a little fox who lived by the river.",
    'The answer is {"name": "add", "arguments": {"left": 2, "right": 3}}.',
    "Größe, naïve café, 你好世界, привет, 😀😃👩‍👩‍👧 and more.",
    "[1, 2, 3]  true false null\n\n\tindented",
]
SPECIAL = ["<s>", "</s>", "<|im_start|>", "<|im_end|>"]
VISIBLE = ["<tool_call>", "</tool_call>", "<think>"]


@cache
def byte_level() -> Tokenizer:
    """As GPT-2, Llama 3 and Qwen have it."""
    return Tokenizer(byte_level_backend())


def byte_level_backend() -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(LINES, trainer)
    backend.add_tokens([tokenizers.AddedToken(text, normalized=False) for text in VISIBLE])
    return backend


@cache
def sentencepiece() -> Tokenizer:
    """As Llama 2 and Mistral have it: ▁ for spaces, <0xAB> for bytes, one leading space dropped."""
    return Tokenizer(sentencepiece_backend())


def sentencepiece_backend() -> tokenizers.Tokenizer:
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2}
    vocabulary |= {f"<0x{byte:02X}>": 3 + byte for byte in range(256)}
    merges = []
    for word in ["▁the", "▁time", "▁a", "▁▁", "▁little", "ing", "you", "名"]:
        for end in range(1, len(word) + 1):
            for token in (word[:end], word[end - 1]):
                vocabulary.setdefault(token, len(vocabulary))
            if end > 1:
                merges.append((word[: end - 1], word[end - 1]))
    for character in sorted(set("".join(LINES[:2]).replace(" ", "▁"))):
        vocabulary.setdefault(character, len(vocabulary))
    backend = tokenizers.Tokenizer(
        models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)])
    backend.add_special_tokens(["<unk>", "<s>", "</s>"])
    return backend


@cache
def metaspace() -> Tokenizer:
    """The older SentencePiece style: a Metaspace decoder."""
    backend = sentencepiece_backend()
    backend.normalizer = None
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    return Tokenizer(backend)


@cache
def wordpiece() -> Tokenizer:
    """A decoder that is neither: BERT's."""
    words = ["[UNK]", "once", "upon", "a", "time", "##s", "fox", "##es", "."]
    backend = tokenizers.Tokenizer(
        models.WordPiece({word: index for index, word in enumerate(words)}, unk_token="[UNK]")
    )
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.decoder = decoders.WordPiece(cleanup=False)
    return Tokenizer(backend)
