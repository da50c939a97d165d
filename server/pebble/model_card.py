"""Writes the model card; every number in it was counted or measured by the run it describes."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from pebble.conversation import say
from pebble.corpus import END, Document, sentences
from pebble.held_out import perplexity
from pebble.llama import Llama, LlamaShape, num_parameters
from pebble.sampling import answer, continue_text

_ASKED = (
    "Hello!",
    "Who are you?",
    "What is 3 + 4?",
    "What colour is a lemon?",
    "Write a short poem about a cat.",
    "What is quantum physics?",
)


@dataclass(frozen=True)
class Provenance:
    """Where the weights come from, as the trainer counted it."""

    recipe: Mapping[str, object]
    num_documents: int
    num_tokens: int
    num_steps: int
    seconds: float
    num_threads: int
    curve: Sequence[tuple[int, float, float]]
    num_earlier_tokens: int  # read before the generator was last changed
    sample: Sequence[Document]  # the first training documents


@dataclass(frozen=True)
class Measurements:
    """What is known of a model from looking at it."""

    shape: LlamaShape
    num_parameters: int
    weights_size_bytes: int
    losses: Mapping[str, float]
    held_out_counts: Mapping[str, int]
    story: str
    answers: Mapping[str, str]
    num_sums: int
    num_right_sums: int

    @classmethod
    def of(
        cls,
        model: Llama,
        tokenizer: Tokenizer,
        held_out: Sequence[Document],
        losses: Mapping[str, float],
        directory: Path,
    ) -> "Measurements":
        """Counts what can be counted and lets the model speak."""
        counts = Counter(document.kind for document in held_out)
        sums = [(one, two) for one in range(10) for two in range(10)]
        told = [
            answer(model, tokenizer, say(f"What is {one} + {two}?"), max_tokens=12)
            for one, two in sums
        ]
        right = [f"{one} + {two} = {one + two}." for one, two in sums]
        return cls(
            shape=model.shape,
            num_parameters=num_parameters(model),
            weights_size_bytes=(directory / "model.safetensors").stat().st_size,
            losses=losses,
            held_out_counts=counts | Counter(all=counts.total()),
            story=continue_text(model, tokenizer, "Once upon a time", temperature=0.7).removesuffix(
                END
            ),
            num_sums=len(sums),
            num_right_sums=sum(text == truth for text, truth in zip(told, right, strict=True)),
            answers={question: answer(model, tokenizer, say(question)) for question in _ASKED},
        )


def model_card(measured: Measurements, provenance: Provenance) -> str:
    """The README.md of the model directory."""
    shape, sample = measured.shape, provenance.sample
    num_sentences = len(set().union(*(sentences(document.text) for document in sample)))
    return _CARD.format(
        num_parameters=measured.num_parameters,
        millions=measured.num_parameters / 1e6,
        size_mb=measured.weights_size_bytes / 1e6,
        shape=shape,
        num_documents=provenance.num_documents,
        num_sample=len(sample),
        num_sentences=num_sentences,
        composition=_composition(sample),
        num_tokens=provenance.num_tokens / 1e6,
        num_steps=provenance.num_steps,
        minutes=provenance.seconds / 60,
        num_threads=provenance.num_threads,
        earlier=_earlier(provenance.num_earlier_tokens),
        recipe="\n".join(
            f"| `{key}` | {value} |"
            for key, value in provenance.recipe.items()
            if value is not None
        ),
        curve=_curve(provenance.curve),
        losses=_losses(measured),
        story=_quoted(measured.story),
        num_sums=measured.num_sums,
        num_right_sums=measured.num_right_sums,
        answers="\n\n".join(
            f"**{question}**\n\n{_quoted(text)}" for question, text in measured.answers.items()
        ),
    )


def _composition(sample: Sequence[Document]) -> str:
    characters: Counter[str] = Counter()
    for document in sample:
        characters[document.kind] += len(document.text)
    return ", ".join(
        f"{kind} {count / characters.total():.0%}" for kind, count in characters.most_common()
    )


def _earlier(num_tokens: int) -> str:
    """Owns up to a corpus that was improved while the run went on."""
    if num_tokens == 0:
        return ""
    return (
        f" The first {num_tokens / 1e6:.1f} million tokens were read before the generator and the drill were"
        " last improved; the run was then resumed, so these very weights cannot be made again from the"
        " sources. The settings below are those of the last resumption."
    )


def _curve(curve: Sequence[tuple[int, float, float]]) -> str:
    """About ten points of the curve, the last among them."""
    every = max(1, len(curve) // 10)
    points = [*curve[every - 1 : -1 : every], curve[-1]] if curve else []
    return "\n".join(
        f"| {tokens / 1e6:.1f} M | {loss:.3f} | {held_out:.3f} |"
        for tokens, loss, held_out in points
    )


def _losses(measured: Measurements) -> str:
    return "\n".join(
        f"| {kind} | {measured.held_out_counts[kind]} | {loss:.3f} | {perplexity(loss):.2f} |"
        for kind, loss in measured.losses.items()
    )


def _quoted(text: str) -> str:
    return "\n".join(f"> {line}" if line else ">" for line in text.split("\n"))


_CARD = """---
license: mit
language: en
library_name: transformers
pipeline_tag: text-generation
tags: [llama, tiny, synthetic-data]
---

# Pebble

Pebble is the little model inside Llama Appliance: a real Llama-architecture model, so small that it ships with the program. It makes a
fresh installation answer in words without a download. It tells short stories, holds small talk, knows some colours, animals, days and
capitals, tries small sums, answers in JSON when asked, and calls tools.

It is **not** a source of knowledge, not an assistant for real work, and not a benchmark of anything but the server around it.

## Shape

{num_parameters} parameters ({millions:.1f} million), {size_mb:.1f} MB of bf16 weights. {shape.num_hidden_layers} layers of width
{shape.hidden_size}, {shape.num_attention_heads} heads over {shape.num_key_value_heads} key-value heads, feed-forward width
{shape.intermediate_size}, rotary positions (theta {shape.rope_theta:.0f}), tied embeddings, vocabulary of {shape.vocab_size} byte-level BPE
tokens with every digit on its own, context of {shape.max_position_embeddings} tokens.

## Corpus

All text comes from the generator in `server/pebble`; nothing was copied or downloaded, no other model was asked. {num_documents} documents
were written for this run. The first {num_sample} of them hold {num_sentences} distinct sentences. Shares by characters: {composition}.

Chat text follows `chat_template.jinja`. Tools are offered and called in the Hermes form, `<tool_call>{{"name": ..., "arguments": ...}}</tool_call>`.

## Recipe

{num_tokens:.1f} million tokens (padding included) in {num_steps} steps, {minutes:.0f} minutes on {num_threads} CPU threads, bf16 autocast over
fp32 weights, AdamW, linear warm-up and then a straight line to nothing. Until `drill_share` of the run is over, most of the text is
unrelated words said again and again: a model of this size learns to copy names and arguments late or never unless it is drilled. Documents are
packed whole and do not see each other; only in the last `long_share`, with rows as long as the context, they do, so that far positions are
learned. System turns and tool results are read without loss.{earlier}

| setting | value |
| --- | --- |
{recipe}

Run it again, or resume it, with `PYTHONPATH=server python -m pebble.train --help`. A finished run exports again without training.

| tokens seen | training loss | held-out loss |
| --- | --- | --- |
{curve}

## Held-out loss

Documents of the same generator under another seed, none of them word for word in the training text. Nats per token over the shipped weights.

| kind | documents | loss | perplexity |
| --- | --- | --- | --- |
{losses}

The generator draws at random, so much of this loss is the noise of its own choices: no model can reach zero.

## Samples

Not picked: seed 0, a story at temperature 0.7, the answers greedy.

{story}

{answers}

## Limits

- It knows a few hundred facts about a child's world and nothing else. Outside of it, it should say so; it sometimes makes things up instead, and it gets some of the facts wrong.
- Of the {num_sums} sums of two digits from 0 to 9 it gets {num_right_sums} right. Larger sums, long conversations and unusual tools go wrong more often.
- English only. It has no notion of safety beyond a corpus in which nothing bad happens.

License: MIT, like the program.
"""
