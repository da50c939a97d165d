"""Writes a model directory anew with quantized weights, and measures what that costs."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import struct
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.engine.model.quantized import (
    LAYOUT,
    QUANT_METHOD,
    kept_tensors,
    kind_of,
    linear_layers,
    quantized_tensors,
)
from appliance.engine.native.packing import quantize_rows
from appliance.engine.native.runner import NativeRunner
from appliance.engine.native.stored_tensors import map_tensor
from appliance.engine.runners import quality
from appliance.engine.runners.sizing import BLOCK_SIZE, choose_threads
from appliance.errors import ModelRefused, SettingsError
from appliance.models.directory import ModelDirectory, open_model
from appliance.models.directory.lock import LOCK_FILE, find_lock
from appliance.models.identity import hash_model
from appliance.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from collections.abc import Callable

    from appliance.engine.model.config import ModelConfig
    from appliance.engine.native.kernels.library import NativeLibrary
    from appliance.models.hashing import FileHasher
    from appliance.models.machine import Machine

    Progress = Callable[[int, int], None]

REPORT_FILE = "quantization.json"
WEIGHT_FILE = "model.safetensors"
MAX_TEXT_TOKENS = 20_000  # more says no more, and takes hours with a large model
ELEMENT_BYTES = {"BF16": 2, "F16": 2, "F32": 4, "I8": 1, "U8": 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was made, and how it compares with its original on a text."""

    weights: str  # int8, int4
    original_weights: str  # the hash of what it was made from, as /version has it
    num_parameters: int
    original_bytes: int
    quantized_bytes: int
    text: str
    text_sha256: str
    quality: quality.Quality

    @property
    def bits_per_parameter(self) -> float:
        return 8 * self.quantized_bytes / self.num_parameters


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantizer:
    """What quantizing needs besides a model: the kernels, threads, and where to tell progress."""

    library: NativeLibrary
    num_threads: int
    cache_dir: Path | None
    hasher: FileHasher
    progress: Progress

    def quantize(self, model: ModelDirectory, to: str, out: Path, text: tuple[str, str]) -> Report:
        """Make the directory `out`, whole or not at all. `text` is a name and the text itself."""
        config = refuse_unfit(model, out)
        token_ids = read_tokens(model, text[1])
        made_from = hash_model(model, self.hasher).weights
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as temporary:
            directory = Path(temporary) / out.name
            directory.mkdir()
            self._write_weights(directory / WEIGHT_FILE, model, config, to)
            copy_files(model, directory, to, made_from)
            made = open_model(directory, hasher=self.hasher)
            report = Report(
                weights=to,
                original_weights=made_from,
                num_parameters=made.num_parameters,
                original_bytes=model.weight_bytes,
                quantized_bytes=made.weight_bytes,
                text=text[0],
                text_sha256=hashlib.sha256(text[1].encode()).hexdigest(),
                quality=self._compare(model, made, token_ids),
            )
            write_json(directory / REPORT_FILE, asdict(report))
            write_lock(directory, out.name, license_of(model), self.hasher)
            directory.rename(out)
        return report

    def _write_weights(
        self, path: Path, model: ModelDirectory, config: ModelConfig, to: str
    ) -> None:
        """A safetensors file, one layer after the other: it may be larger than memory."""
        made = quantized_tensors(config, to)
        kept = {
            name: (model.tensors[name].dtype, shape) for name, shape in kept_tensors(config).items()
        }
        header, starts = lay_out({**kept, **made})
        layers = linear_layers(config)
        with path.open("xb") as file, self.library.threads(self.num_threads) as pool:
            file.write(header)
            for name in kept:
                file.seek(len(header) + starts[name])
                file.write(map_tensor(model.tensors[name]).tobytes())
            for index, name in enumerate(layers):
                is_shared = f"{name}.weight" not in model.tensors  # the output matrix, if tied
                stored = model.tensors[
                    "model.embed_tokens.weight" if is_shared else f"{name}.weight"
                ]
                rows = quantize_rows(self.library, pool, kind_of(name, to), stored)
                for part, values in rows.items():
                    file.seek(len(header) + starts[f"{name}.{part}"])
                    file.write(values.tobytes())
                self.progress(index + 1, len(layers))

    def _compare(
        self, model: ModelDirectory, made: ModelDirectory, token_ids: list[int]
    ) -> quality.Quality:
        found = quality.compare(
            self._runner(model),
            self._runner(made),
            token_ids,
            bos_token_id=model.bos_token_id if model.add_bos_token else None,
            progress=self.progress,
        )
        if not math.isfinite(found.original_perplexity + found.quantized_perplexity + found.max_kl):
            raise ModelRefused(
                "The model predicts no finite numbers, as it is or quantized: perplexity"
                f" {found.original_perplexity:g} and {found.quantized_perplexity:g}."
                " Its weights are damaged; fetch it again."
            )
        return found

    def _runner(self, model: ModelDirectory) -> NativeRunner:
        assert model.native is not None  # noqa: S101 - refused before
        return NativeRunner(
            self.library,
            model.native,
            model.tensors,
            block_size=BLOCK_SIZE,
            num_blocks=-(-quality.WINDOW_TOKENS // BLOCK_SIZE),
            num_threads=self.num_threads,
            quantization=model.quantization,
            cache_dir=self.cache_dir,
            weights_id=hash_model(model, self.hasher).weights,
        )


def build_quantizer(
    machine: Machine, threads: int | None, hasher: FileHasher, progress: Progress
) -> Quantizer:
    library, reason = machine.kernels()
    if library is None:
        raise SettingsError(f"Quantizing needs the native kernels, and {reason}. Install gcc.")
    return Quantizer(
        library=library,
        num_threads=choose_threads(threads, machine.num_cores),
        cache_dir=machine.cache_dir,
        hasher=hasher,
        progress=progress,
    )


def refuse_unfit(model: ModelDirectory, out: Path) -> ModelConfig:
    if model.quantization != "none":
        raise ModelRefused(
            f"The model is quantized to {model.quantization} already. Quantize its original."
        )
    if model.native is None:
        raise ModelRefused(
            f"Models of type {model.model_type} cannot be quantized: only the Llama family, "
            "Mistral, Qwen 2 and 3 can, which the native engine computes."
        )
    if out.exists() or out.is_symlink():
        raise SettingsError(f"--out is {out}, which exists. Name a new directory, or remove it.")
    if not out.parent.is_dir():
        raise SettingsError(f"--out is {out}; the directory {out.parent} does not exist. Make it.")
    return model.native


def read_tokens(model: ModelDirectory, text: str) -> list[int]:
    tokenizer = Tokenizer.from_file(model.files["tokenizer"])
    token_ids = tokenizer.encode(text, add_special_tokens=False)[:MAX_TEXT_TOKENS]
    if len(token_ids) < 2:
        raise SettingsError("--text has fewer than 2 tokens; a few thousand tell something.")
    return token_ids


def lay_out(tensors: dict[str, tuple[str, tuple[int, ...]]]) -> tuple[bytes, dict[str, int]]:
    """A safetensors header, and where each tensor starts behind it: the widest elements first."""
    header: dict[str, object] = {}
    starts: dict[str, int] = {}
    end = 0
    for name in sorted(tensors, key=lambda name: (-ELEMENT_BYTES[tensors[name][0]], name)):
        dtype, shape = tensors[name]
        size = ELEMENT_BYTES[dtype]
        for length in shape:
            size *= length
        starts[name], end = end, end + size
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [starts[name], end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text, starts


def copy_files(model: ModelDirectory, directory: Path, to: str, made_from: str) -> None:
    for role, path in model.files.items():
        if role != "config":
            shutil.copyfile(path, directory / path.name)
    note = {
        "quant_method": QUANT_METHOD,
        "layout": LAYOUT,
        "weights": to,
        "original_weights": made_from,
    }
    write_json(directory / "config.json", {**model.config, "quantization_config": note})


def write_lock(directory: Path, name: str, license: str, hasher: FileHasher) -> None:
    """The lock that a server verifies the directory by; the revision is that of its own files."""
    paths = sorted(directory.iterdir())
    hashes = hasher.hash_files(paths)
    listing = "".join(sorted(f"{hashes[path]}  {path.name}\n" for path in paths))
    files = {path.name: {"sha256": hashes[path], "size": path.stat().st_size} for path in paths}
    lock = {
        "lock": 1,
        "name": name,
        "repository": f"local/{name}",
        "revision": hashlib.sha256(listing.encode()).hexdigest()[:40],
        "license": license,
        "source": ".",
        "files": files,
    }
    write_json(directory / LOCK_FILE, lock)


def license_of(model: ModelDirectory) -> str:
    """What the original's lock says; nobody else knows."""
    path = find_lock(model.path) if model.is_locked else None
    found = {} if path is None else json.loads(path.read_bytes())
    return str(found.get("license") or "unknown")


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
