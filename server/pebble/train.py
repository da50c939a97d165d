"""Trains the embedded model on the generated corpus, with progress, checkpoints and exports along the way."""

import argparse
import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from pebble.corpus import BEGIN, Document, drills, split
from pebble.export import EMBEDDED_DIRECTORY, export
from pebble.held_out import held_out_losses
from pebble.llama import Llama, LlamaShape, apart
from pebble.model_card import Provenance
from pebble.packing import Rows, pack
from pebble.tokenizer import token_id, train_tokenizer


@dataclass(frozen=True)
class Recipe:
    """Everything a run is made of; the same recipe with `steps` makes the same weights on the same machine."""

    seed: int = 1
    num_documents: int = 330_000
    num_held_out: int = 1_200
    num_tokenizer_documents: int = 80_000
    num_sample: int = 50_000
    tokens_per_step: int = 4096
    row_length: int = 512
    long_row_length: int = 2048
    long_share: float = 0.05
    drill_share: float = 0.12
    num_drills: int = 25_000
    learning_rate: float = 3e-3
    weight_decay: float = 0.1
    warmup_steps: int = 100
    steps: int | None = None
    minutes: float | None = None


@dataclass
class Progress:
    """How far a run has come; saved in its checkpoint."""

    step: int = 0
    seconds: float = 0.0
    tokens: int = 0
    corpora: list[tuple[int, str]] = field(default_factory=list)  # tokens at its start, digest
    curve: list[tuple[int, float, float]] = field(
        default_factory=list
    )  # tokens, training loss, held-out loss


class Corpus:
    """The packed rows of a recipe, read in an order that its seed alone decides."""

    def __init__(self, recipe: Recipe, tokenizer: Tokenizer | None = None) -> None:
        train, self.held_out = split(recipe.seed, recipe.num_documents, recipe.num_held_out)
        self.num_documents, self.sample = len(train), train[: recipe.num_sample]
        self.tokenizer = tokenizer or train_tokenizer(
            document.text for document in train[: recipe.num_tokenizer_documents]
        )
        num_long = int(recipe.long_share * len(train))
        pages = list(islice(drills(recipe.seed), recipe.num_drills))
        first = [document.text for document in (*train[:1000], *pages[:1000])]
        self.digest = hashlib.sha256("".join(first).encode()).hexdigest()
        self._drill = _packed(self.tokenizer, pages + train[: len(pages) // 2], recipe.row_length)
        self._short = _packed(self.tokenizer, train[num_long:], recipe.row_length)
        self._long = _packed(self.tokenizer, train[:num_long], recipe.long_row_length)
        self._recipe = recipe

    def batch(self, step: int, phase: str) -> tuple[Tensor, Tensor]:
        """Tokens and targets of one step; every pass over the rows has its own order."""
        tokens, targets = {"drill": self._drill, "read": self._short, "long": self._long}[phase]
        size = max(1, self._recipe.tokens_per_step // tokens.shape[1])
        per_pass = max(1, len(tokens) // size)
        order = np.random.default_rng((self._recipe.seed, step // per_pass)).permutation(
            len(tokens)
        )
        at = step % per_pass * size
        chosen = order[at : at + size]
        return torch.from_numpy(tokens[chosen]).long(), torch.from_numpy(targets[chosen]).long()


def _packed(
    tokenizer: Tokenizer, documents: Sequence[Document], row_length: int
) -> tuple[Rows, Rows]:
    return pack(tokenizer, (document.text for document in documents), row_length)


class Trainer:
    """One run: model, optimizer, progress, and the checkpoint they live in."""

    def __init__(
        self, recipe: Recipe, shape: LlamaShape, corpus: Corpus, *, is_compiled: bool = False
    ) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.corpus, self.progress = (
            recipe,
            corpus,
            Progress(corpora=[(0, corpus.digest)]),
        )
        self.model = Llama(shape)
        matrices = [parameter for parameter in self.model.parameters() if parameter.ndim == 2]
        gains = [parameter for parameter in self.model.parameters() if parameter.ndim == 1]
        groups = [
            {"params": matrices, "weight_decay": recipe.weight_decay},
            {"params": gains, "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(
            groups, lr=recipe.learning_rate, betas=(0.9, 0.95), fused=True
        )
        self._loss = torch.compile(self.model.loss) if is_compiled else self.model.loss

    @property
    def fraction_done(self) -> float:
        """Of the minutes where they are given, else of the steps."""
        if self.recipe.minutes is not None:
            return self.progress.seconds / (60 * self.recipe.minutes)
        return self.progress.step / (self.recipe.steps or 1)

    @property
    def phase(self) -> str:
        """Drill, then read, and at last rows as long as the context."""
        if self.fraction_done < self.recipe.drill_share:
            return "drill"
        return "read" if self.fraction_done < 1.0 - self.recipe.long_share else "long"

    def learning_rate(self) -> float:
        """Warm-up, then straight down to nothing."""
        warm = min(1.0, (self.progress.step + 1) / self.recipe.warmup_steps)
        return self.recipe.learning_rate * warm * max(0.0, 1.0 - self.fraction_done)

    def run(self) -> Iterator[float]:
        """Trains to the end and yields the loss of every step."""
        while self.fraction_done < 1.0:
            yield self.step()

    def step(self) -> float:
        """One forward and backward pass and one update."""
        started = time.monotonic()
        tokens, targets = self.corpus.batch(self.progress.step, self.phase)
        # Apart, documents are learned fastest; the long rows run on, so that far positions are learned.
        mask = (
            None if self.phase == "long" else apart(tokens, token_id(self.corpus.tokenizer, BEGIN))
        )
        with torch.autocast("cpu", torch.bfloat16):
            loss = self._loss(tokens, targets, mask)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.progress.step += 1
        self.progress.tokens += tokens.numel()
        self.progress.seconds += time.monotonic() - started
        return float(loss.detach())

    def held_out_losses(self, num_documents: int) -> Mapping[str, float]:
        """Losses on the first held-out documents."""
        return held_out_losses(
            self.model, self.corpus.tokenizer, self.corpus.held_out[:num_documents]
        )

    def save(self, path: Path) -> None:
        """Writes the checkpoint whole or not at all."""
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "tokenizer": self.corpus.tokenizer.to_str(),
            "progress": vars(self.progress),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(path)

    def load(self, path: Path) -> None:
        """Goes on where a checkpoint stopped."""
        state = torch.load(path, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.progress = Progress(**state["progress"])
        if not self.progress.corpora or self.progress.corpora[-1][1] != self.corpus.digest:
            self.progress.corpora.append((self.progress.tokens, self.corpus.digest))


def saved_tokenizer(checkpoint: Path) -> Tokenizer:
    """The tokenizer a checkpoint was trained with; a resumed run must keep it even where the corpus has changed."""
    return Tokenizer.from_str(torch.load(checkpoint, weights_only=True)["tokenizer"])


def _provenance(trainer: Trainer) -> Provenance:
    return Provenance(
        recipe=vars(trainer.recipe),
        num_documents=trainer.corpus.num_documents,
        num_tokens=trainer.progress.tokens,
        num_steps=trainer.progress.step,
        seconds=trainer.progress.seconds,
        num_threads=torch.get_num_threads(),
        curve=tuple(trainer.progress.curve),
        num_earlier_tokens=trainer.progress.corpora[-1][0],
        sample=trainer.corpus.sample,
    )


def train(
    trainer: Trainer, checkpoint: Path, output: Path, *, report_every: int, save_every_s: float
) -> None:
    """Runs to the end; reports, saves and exports every so often, and once more when there is nothing left to train."""
    losses: list[float] = []
    saved_at = time.monotonic()
    for loss in trainer.run():
        losses.append(loss)
        if trainer.progress.step % report_every == 0 or trainer.fraction_done >= 1.0:
            _report(trainer, sum(losses) / len(losses))
            losses.clear()
        if time.monotonic() - saved_at > save_every_s:
            _save(trainer, checkpoint, output)
            saved_at = time.monotonic()
    _save(trainer, checkpoint, output)


def _save(trainer: Trainer, checkpoint: Path, output: Path) -> None:
    trainer.save(checkpoint)
    export(
        trainer.model,
        trainer.corpus.tokenizer,
        trainer.corpus.held_out,
        _provenance(trainer),
        output,
    )


def _report(trainer: Trainer, loss: float) -> None:
    progress, held_out = trainer.progress, trainer.held_out_losses(200)["all"]
    progress.curve.append((progress.tokens, loss, held_out))
    eta_s = progress.seconds / trainer.fraction_done - progress.seconds
    print(
        f"step {progress.step}  loss {loss:.3f}  held-out {held_out:.3f}  {progress.tokens / progress.seconds:.0f} tok/s  "
        f"{progress.tokens / 1e6:.1f}M tokens  lr {trainer.learning_rate():.1e}  ETA {eta_s / 60:.1f} min",
        flush=True,
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="PYTHONPATH=server python -m pebble.train",
        description="Trains the embedded model. Goes on from its checkpoint if there is one.",
    )
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument("--minutes", type=float, help="train this long, all resumed runs together")
    length.add_argument("--steps", type=int, help="train this many steps; repeatable bit for bit")
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    parser.add_argument(
        "--documents", type=int, default=Recipe.num_documents, help="training documents to write"
    )
    parser.add_argument("--drill-share", type=float, default=Recipe.drill_share, help="of the run")
    parser.add_argument("--long-share", type=float, default=Recipe.long_share, help="of the run")
    parser.add_argument("--learning-rate", type=float, default=Recipe.learning_rate)
    parser.add_argument("--threads", type=int, help="CPU threads; all by default")
    parser.add_argument(
        "--compile",
        action="store_true",
        help="torch.compile the model: faster, needs a C++ compiler",
    )
    parser.add_argument(
        "--resume",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="go on from the checkpoint",
    )
    parser.add_argument("--checkpoints", type=Path, default=Path("build/embedded"))
    parser.add_argument("--output", type=Path, default=EMBEDDED_DIRECTORY)
    parser.add_argument(
        "--report-every", type=int, default=100, help="steps between two progress lines"
    )
    parser.add_argument(
        "--save-every", type=float, default=300, help="seconds between two checkpoints"
    )
    return parser.parse_args()


def main() -> None:
    """The command line."""
    arguments = _arguments()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    recipe = Recipe(
        seed=arguments.seed,
        num_documents=arguments.documents,
        drill_share=arguments.drill_share,
        long_share=arguments.long_share,
        learning_rate=arguments.learning_rate,
        steps=arguments.steps,
        minutes=arguments.minutes,
    )
    checkpoint = arguments.checkpoints / "checkpoint.pt"
    is_resumed = arguments.resume and checkpoint.exists()
    print("writing and packing the corpus", flush=True)
    corpus = Corpus(recipe, saved_tokenizer(checkpoint) if is_resumed else None)
    trainer = Trainer(
        recipe, LlamaShape(corpus.tokenizer.get_vocab_size()), corpus, is_compiled=arguments.compile
    )
    if is_resumed:
        trainer.load(checkpoint)
        print(f"resumed at step {trainer.progress.step}", flush=True)
    train(
        trainer,
        checkpoint,
        arguments.output,
        report_every=arguments.report_every,
        save_every_s=arguments.save_every,
    )


if __name__ == "__main__":
    main()
