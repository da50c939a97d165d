"""`make laws`: the native engine's laws as a table, each cell a count of values compared."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
from transformers.utils import logging

from appliance.engine.runners.quality import compare
from appliance.engine.sequence import SamplingParams
from appliance.text.tokenizer import Tokenizer
from tests.engine.engine_setup import EngineSetup, Request, make_engine
from tests.engine.logit_record import LogitRecord, RecordingRunner
from tests.engine.native_harness import (
    QUANTIZATIONS,
    embedded_model,
    native_library,
    native_runner,
    supported_variants,
)
from tests.engine.neighbour import busy_neighbour
from tests.engine.runner_harness import (
    Sequences,
    load_reference,
    random_tokens,
    reference_logits,
    run_chunks,
)
from tests.fakes import FakeObserver

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from appliance.engine.sequence import TokenEvent
    from appliance.engine.stream import SequenceStream

PRECISIONS = {"none": "bf16", "int8": "int8", "int4": "int4"}
VOCAB_SIZE = 4096
MAX_PROMPT, MAX_NEW = 200, 40


@dataclass(frozen=True, kw_only=True)
class Setup(EngineSetup):
    max_context_tokens: int = MAX_PROMPT + MAX_NEW
    num_spare_blocks: int = 85
    num_steps_between: int = 0  # requests


Answer = tuple[tuple[object, ...], ...]


@dataclass
class Cell:
    """One law at one precision."""

    num_values: int = 0
    faults: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return "; ".join(self.faults) or f"same, {self.num_values:,}"


def make_requests() -> list[Request]:
    """Prompts of 1 to 200 tokens, some of one stem; greedy, sampled, penalised, scored, pooled."""
    stem = random_tokens(80, seed=1, vocab_size=VOCAB_SIZE)
    words = stem[:5]
    requests = []
    for index, length in enumerate((1, 17, 64, 200, 90, 96, 33, 130)):
        own = random_tokens(length, seed=index, vocab_size=VOCAB_SIZE)
        prompt = (*stem, *own[80:]) if length >= 90 else tuple(own)
        params = SamplingParams(
            max_new_tokens=MAX_NEW,
            seed=index,
            temperature=index % 2 * 0.8,
            top_p=0.9 if index % 4 == 1 else 1.0,
            frequency_penalty=0.3 if index == 3 else 0.0,
            logit_bias=dict.fromkeys(words, 60.0) if index in (4, 5) else {},  # so that it repeats
            num_logprobs=3,
            num_prompt_logprobs=1 if index in (2, 6) else None,
        )
        requests.append(Request(prompt, params))
    scored = replace(requests[3], params=replace(requests[3].params, max_new_tokens=0))
    return [*requests, replace(scored, is_pooled=True)]


def content(events: list[TokenEvent]) -> Answer:
    """All that events say, floats to the last bit."""
    return tuple(
        (
            event.token_id,
            event.logprobs,
            event.prompt_logprobs,
            None if event.embedding is None else event.embedding.tobytes(),
            event.finish_reason,
        )
        for event in events
    )


@dataclass
class Trials:
    """One precision: a record of all its logits, and each request's answer when it was alone."""

    quantization: str
    requests: list[Request] = field(default_factory=make_requests)
    record: LogitRecord = field(default_factory=LogitRecord)
    alone: list[Answer] = field(default_factory=list)

    def __post_init__(self) -> None:
        for request in self.requests:
            answers, _ = self.run(Setup(), [request])
            self.alone += answers
        self.record.take_comparison()

    def run(
        self, setup: Setup, requests: list[Request], cache_dir: Path | None = None
    ) -> tuple[list[Answer], FakeObserver]:
        return asyncio.run(self._run(setup, requests, cache_dir))

    def try_setup(
        self,
        setup: Setup,
        *,
        order: list[int] | None = None,
        cache_dir: Path | None = None,
        has_happened: Callable[[FakeObserver], bool] = lambda _: True,
    ) -> Cell:
        """Ask all requests in this setup; `has_happened` tells whether the setup had its effect."""
        order = list(range(len(self.requests))) if order is None else order
        answers, observer = self.run(setup, [self.requests[index] for index in order], cache_dir)
        comparison = self.record.take_comparison()
        cell = Cell(comparison.num_values)
        if comparison.num_different_rows:
            cell.faults.append(
                f"{comparison.num_different_rows} of {comparison.num_rows} rows differ"
            )
        wrong = [i for i, answer in zip(order, answers, strict=True) if answer != self.alone[i]]
        if wrong:
            cell.faults.append(f"answers {wrong} differ")
        if not has_happened(observer):
            cell.faults.append("it did not happen")
        return cell

    async def _run(
        self, setup: Setup, requests: list[Request], cache_dir: Path | None
    ) -> tuple[list[Answer], FakeObserver]:
        observer = FakeObserver()
        runner = native_runner(
            embedded_model(),
            quantization=self.quantization,
            num_threads=setup.num_threads,
            block_size=setup.block_size,
            num_blocks=setup.num_blocks,
            cache_dir=cache_dir,
        )
        engine = make_engine(RecordingRunner(runner, self.record), setup, observer)
        streams: list[SequenceStream] = []
        for request in requests:
            streams.append(
                engine.submit(request.prompt_ids, request.params, is_pooled=request.is_pooled)
            )
            for _ in range(setup.num_steps_between):
                engine.step()
        while engine.num_running or engine.num_waiting:
            engine.step()
        answers = [content([event async for event in stream]) for stream in streams]
        return answers, observer


def together(cells: list[Cell]) -> Cell:
    return Cell(sum(c.num_values for c in cells), [fault for c in cells for fault in c.faults])


def batch_size(trials: Trials) -> Cell:
    return together([trials.try_setup(Setup(max_sequences=count)) for count in (2, 4, 9)])


def order(trials: Trials) -> Cell:
    indices = list(range(len(trials.requests)))
    orders = [
        indices[::-1],
        *(random.Random(seed).sample(indices, len(indices)) for seed in (1, 2)),
    ]
    return together([trials.try_setup(Setup(max_sequences=4), order=each) for each in orders])


def arrival(trials: Trials) -> Cell:
    setups = [Setup(max_sequences=9, num_steps_between=count) for count in (1, 3, 7)]
    return together([trials.try_setup(setup) for setup in setups])


def chunk_size(trials: Trials) -> Cell:
    setups = [Setup(max_sequences=3, max_batch_tokens=count) for count in (7, 16, 100)]
    return together([trials.try_setup(setup) for setup in setups])


def threads(trials: Trials) -> Cell:
    setups = [Setup(max_sequences=4, num_threads=count) for count in (1, 2, 3)]
    return together([trials.try_setup(setup) for setup in setups])


def block_size(trials: Trials) -> Cell:
    return trials.try_setup(Setup(max_sequences=4, block_size=48, num_spare_blocks=35))


def prefix_hit(trials: Trials) -> Cell:
    setup = Setup(max_sequences=2, max_batch_tokens=64, shares_prefixes=True)
    twice = [*range(len(trials.requests))] * 2
    return trials.try_setup(setup, order=twice, has_happened=lambda o: o.num_reused_tokens > 500)


def has_preempted(observer: FakeObserver) -> bool:
    return observer.num_preemptions > 0


def preemption(trials: Trials) -> Cell:
    setup = Setup(max_sequences=9, num_spare_blocks=5)
    found = trials.try_setup(setup, has_happened=has_preempted)
    hit = replace(setup, shares_prefixes=True)
    return together([found, trials.try_setup(hit, has_happened=has_preempted)])


def guesses(trials: Trials) -> Cell:
    cells = [
        trials.try_setup(
            Setup(max_sequences=count, speculates=True),
            has_happened=lambda o: 0 < o.num_accepted < o.num_drafted,
        )
        for count in (1, 3)
    ]
    return together(cells)


def variants(trials: Trials) -> Cell:
    """Every width of vectors that this CPU has, and plain C."""
    best, *others = supported_variants()
    cells = []
    try:
        for variant in others:
            native_library().choose_variant(variant)
            cells.append(trials.try_setup(Setup(max_sequences=4, max_batch_tokens=64)))
    finally:
        native_library().choose_variant(best)
    return together(cells)


def restart(trials: Trials) -> Cell:
    """Weights packed anew, found packed, and another process."""
    with TemporaryDirectory() as directory:
        cells = [trials.try_setup(Setup(), cache_dir=Path(directory)) for _ in range(2)]
    command = [sys.executable, "-m", "tests.engine.law_matrix", trials.quantization]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    fresh = Trials(trials.quantization)
    if told[-1:] != [fresh.record.fingerprint]:
        cells.append(Cell(faults=["another process computes other bits"]))
    return together(cells)


def second_model(trials: Trials) -> Cell:
    with busy_neighbour(embedded_model()):
        return trials.try_setup(Setup(max_sequences=4, num_threads=2, max_batch_tokens=64))


def everything(trials: Trials) -> Cell:
    setup = Setup(
        max_batch_tokens=50,
        max_sequences=6,
        num_threads=2,
        num_spare_blocks=15,
        shares_prefixes=True,
        speculates=True,
        num_steps_between=2,
    )
    indices = random.Random(3).sample(range(len(trials.requests)), len(trials.requests))
    return trials.try_setup(setup, order=indices)


LAWS: dict[str, Callable[[Trials], Cell]] = {
    "batches of 2, 4, 9 sequences": batch_size,
    "order of arrival": order,
    "steps between arrivals: 1, 3, 7": arrival,
    "chunks of 7, 16, 100 tokens": chunk_size,
    "1, 2, 3 threads": threads,
    "blocks of 48 tokens": block_size,
    "prefixes found in the cache": prefix_hit,
    "preempted and computed again": preemption,
    "guessed tokens": guesses,
    "each vector width of this CPU": variants,
    "restart; another process": restart,
    "a second model that computes": second_model,
    "all at once": everything,
}


def rows() -> Iterator[tuple[str, list[Cell]]]:
    all_trials = [Trials(quantization) for quantization in QUANTIZATIONS]
    for name, law in LAWS.items():
        yield name, [law(trials) for trials in all_trials]


def closeness() -> Iterator[str]:
    """How far each precision is from float32, and what it costs on the stories held out."""
    path = embedded_model()
    logging.disable_progress_bar()
    reference = load_reference(path)
    token_ids = random_tokens(300, vocab_size=VOCAB_SIZE)
    expected = reference_logits(reference, token_ids)
    story = resources.files("appliance").joinpath("held_out.txt").read_text(encoding="utf-8")
    story_ids = Tokenizer.from_file(path / "tokenizer.json").encode(story, add_special_tokens=False)
    for quantization in QUANTIZATIONS:
        runner = native_runner(path, quantization=quantization)
        sequence = Sequences(block_size=16).make(token_ids)
        logits = run_chunks(runner, sequence, [len(token_ids)])
        error = float(np.abs(logits - expected).max() / np.abs(expected).max())
        quality = compare(native_runner(path), runner, story_ids)
        change = quality.quantized_perplexity / quality.original_perplexity - 1
        yield (
            f"| {PRECISIONS[quantization]} | {error:.1e} | {quality.quantized_perplexity:.3f}"
            f" | {change:+.2%} | {quality.mean_kl:.1e} |"
        )


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> int:
    if sys.argv[1:]:
        say(Trials(sys.argv[1]).record.fingerprint)
        return 0
    say(f"embedded model, {', '.join(supported_variants())}; each sequence alone is what")
    say("the others are compared with: logits, log-probabilities and tokens, bit for bit\n")
    say("| varied |" + "".join(f" {PRECISIONS[q]} |" for q in QUANTIZATIONS))
    say("| --- |" + " --- |" * len(QUANTIZATIONS))
    num_faults = 0
    for name, cells in rows():
        say(f"| {name} |" + "".join(f" {cell} |" for cell in cells))
        num_faults += sum(len(cell.faults) for cell in cells)
    say(f"\n{num_faults or 'no'} differences; the numbers are logits compared\n")
    say("| | largest error / largest logit, transformers float32 | perplexity | change | KL |")
    say("| --- |" + " --- |" * 4)
    for line in closeness():
        say(line)
    return 1 if num_faults else 0


if __name__ == "__main__":
    sys.exit(main())
