"""`appliance quantize`: writes a model with weights of fewer bits and measures the cost."""

from __future__ import annotations

import importlib.resources
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from appliance.cli.parsing import add_command, examples
from appliance.cli.serve import server_variables
from appliance.console.terminal import Terminal
from appliance.errors import SettingsError
from appliance.models.options import OPTIONS, load_configuration
from appliance.settings import parse_setting

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping
    from types import FrameType

    from appliance.cli.parsing import Commands
    from appliance.models.options import Configuration
    from appliance.models.quantizer import Report

MAX_TEXT_BYTES = 10_000_000
DEFAULT_TEXT = "held-out stories"


def add_parser(commands: Commands) -> None:
    parser = add_command(
        commands,
        "quantize",
        summary="write a copy of a model with weights of 8 or 4 bits",
        description="Write a model directory whose weights take 8 or 4 bits, with a lock of its"
        "\nown. Its answers have the same bits as the original served with --quantization."
        "\nThe command measures the cost on a text and writes it to quantization.json:"
        "\nperplexity, and how far predictions move.",
        examples=examples(
            (
                "appliance quantize ~/models/SmolLM2-135M --to int8",
                "write the copy beside the original",
            ),
            (
                "appliance quantize DIR --to int4 --out OUT --text book.txt",
                "measure the cost on a book",
            ),
            after="For the Llama family, Mistral, Qwen 2 and 3.\n"
            "Exit code 2: an argument is wrong; 3: the model is refused.",
        ),
    )
    parser.add_argument("directory", metavar="DIR", type=Path, help="model directory to read")
    parser.add_argument("--to", required=True, choices=("int8", "int4"), help="bits of a weight")
    parser.add_argument(
        "--out", metavar="DIR", type=Path, help="directory to write; default: DIR-int8 or DIR-int4"
    )
    parser.add_argument(
        "--text",
        metavar="FILE",
        type=Path,
        help="UTF-8 text to measure on (its first 20,000 tokens); default: 30 short stories that"
        " come with the program",
    )
    parser.add_argument("--threads", metavar="N", help="CPU threads; default: all cores")


def run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    flags = {}
    if arguments.threads is not None:
        flags["threads"] = parse_setting("--threads", OPTIONS["threads"], arguments.threads)
    configuration = load_configuration(server_variables(environ), flags)
    directory = arguments.directory.resolve()
    out = arguments.out or directory.with_name(f"{directory.name}-{arguments.to}")
    text = read_text(arguments.text)
    before = signal.signal(signal.SIGTERM, end)
    try:
        print(as_text(quantize(configuration, directory, arguments.to, out, text), out))
    finally:
        signal.signal(signal.SIGTERM, before)
    return 0


def quantize(
    configuration: Configuration, directory: Path, to: str, out: Path, text: tuple[str, str]
) -> Report:
    from appliance.models.directory import open_model
    from appliance.models.hashing import FileHasher
    from appliance.models.machine import ThisMachine
    from appliance.models.quantizer import build_quantizer

    terminal = Terminal(sys.stderr)
    cache_dir = configuration.settings.cache_dir
    hasher = FileHasher(cache_dir, terminal.show_hashing)
    with terminal.counting(f"quantizing to {to} and measuring"):
        model = open_model(directory, hasher=hasher)
        quantizer = build_quantizer(
            ThisMachine(cache_dir), configuration.models[0].threads, hasher, terminal.show_share
        )
        return quantizer.quantize(model, to, out, text)


def end(number: int, frame: FrameType | None) -> NoReturn:
    """End by an exception, so that a half-written directory is removed."""
    raise SystemExit(128 + number)


def read_text(path: Path | None) -> tuple[str, str]:
    """Return a name for the report, and the text."""
    if path is None:
        shipped = importlib.resources.files("appliance") / "held_out.txt"
        return DEFAULT_TEXT, shipped.read_text(encoding="utf-8")
    try:
        with path.open("rb") as file:
            return path.name, file.read(MAX_TEXT_BYTES).decode("utf-8", "ignore")
    except OSError as error:
        raise SettingsError(f"--text is {path}, which cannot be read: {error.strerror}.") from None


def as_text(report: Report, out: Path) -> str:
    quality = report.quality
    before, after = quality.original_perplexity, quality.quantized_perplexity
    rows = {
        "weights": f"{report.weights}, {report.bits_per_parameter:.2f} bits a parameter;"
        f" {report.quantized_bytes / 1e6:,.0f} MB from {report.original_bytes / 1e6:,.0f} MB",
        "text": f"{report.text}, {quality.num_tokens:,} tokens predicted",
        "perplexity": f"{before:.4f} before, {after:.4f} after ({after / before - 1:+.2%})",
        "divergence": f"{quality.mean_kl:.5f} nats a token (KL from the original);"
        f" 99 % are below {quality.p99_kl:.4f}",
        "same choice": f"{quality.same_choice_share:.1%} of tokens",
        "written": f"{out}, with quantization.json and model.lock.json",
        "next": f"appliance serve --model {out}",
    }
    return "\n".join(f"  {name:12}{value}" for name, value in rows.items())
