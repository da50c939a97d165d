"""Says what is running: hashes of weights, tokenizer, template and server, and the machine.

Each hash is that of a list of lines `<sha256>  <name>`, sorted. In the model directory:
    sha256sum <names> | LC_ALL=C sort | sha256sum

weights    the safetensors files, config.json and generation_config.json: all that decides which
           token comes next and which one ends an answer
tokenizer  tokenizer.json, tokenizer_config.json and special_tokens_map.json: all that decides which
           token ids a text becomes
template   the SHA-256 of the chat template's source itself; None without a template
server     every file of this package but the embedded model and caches, named from the package's
           root, and a line `<version>  <distribution>` for each dependency that touches numbers or
           token ids

The fingerprint is one hash over what an answer's bits depend on, and nothing else: servers that
share it answer alike. Beside weights, tokenizer and template that is the code, those of the
dependencies that the engine uses, and its kind of numbers; threads, instruction sets and device
belong to it where its arithmetic depends on them, which the native engine's does not.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import appliance

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from appliance.models.directory import ModelDirectory
    from appliance.models.hashing import FileHasher

PACKAGE = Path(__file__).parents[1]
SHORT_LENGTH = 12
WEIGHT_ROLES = ("config", "generation_config")
TOKENIZER_ROLES = ("tokenizer", "tokenizer_config", "special_tokens_map")
NUMERIC_DISTRIBUTIONS = ("llguidance", "numpy", "tokenizers", "torch", "transformers")
UNUSED_DISTRIBUTIONS = {"native": {"torch", "transformers"}, "torch": {"transformers"}}

# The instruction sets that decide which kernels a CPU runs, in the order they are named.
NUMERIC_FEATURES = (
    "avx", "avx2", "fma", "avx512f", "avx512vl", "avx512_vnni", "avx512_bf16", "avx512_fp16",
    "amx_tile", "amx_int8", "amx_bf16",
    "asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2",
)  # fmt: skip
_MACHINES = {"x86_64": "x86-64", "AMD64": "x86-64", "arm64": "aarch64"}


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What answers. Hashes are full SHA-256 in hex; `generation` is that of the environment."""

    model: str
    weights: str
    tokenizer: str
    template: str | None
    server: str
    generation: str | None
    version: str
    engine: str  # the runner's name
    dtype: str
    device: str
    num_threads: int
    isa: str
    arithmetic: str  # the hash of all that computes: see the fingerprint

    def short(self) -> dict[str, str | None]:
        """The four hashes, cut to 12 digits, as answers carry them."""
        return {
            "weights": self.weights[:SHORT_LENGTH],
            "tokenizer": self.tokenizer[:SHORT_LENGTH],
            "template": self.template[:SHORT_LENGTH] if self.template is not None else None,
            "server": self.server[:SHORT_LENGTH],
        }

    def hashes(self) -> dict[str, str | None]:
        """Return the four hashes in full."""
        return {
            "weights": self.weights,
            "tokenizer": self.tokenizer,
            "template": self.template,
            "server": self.server,
        }

    def runtime(self) -> dict[str, str | int]:
        """Return what computes."""
        return {
            "engine": self.engine,
            "dtype": self.dtype,
            "device": self.device,
            "threads": self.num_threads,
            "isa": self.isa,
        }

    @cached_property
    def fingerprint(self) -> str:
        """One short hash over what an answer's bits depend on: OpenAI's system_fingerprint."""
        text = json.dumps([self.weights, self.tokenizer, self.template, self.arithmetic])
        return "fp_" + hashlib.sha256(text.encode()).hexdigest()[:SHORT_LENGTH]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerFacts:
    """What only the loaded runner and the settings know."""

    engine: str
    dtype: str
    device: str
    num_threads: int
    is_portable: bool = False  # whether its bits are the same on every machine
    generation: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Hashes:
    """What is hashed before a runner exists; see the module's docstring for what each covers."""

    weights: str
    tokenizer: str
    template: str | None
    server: str


def hash_model(model: ModelDirectory, hasher: FileHasher) -> Hashes:
    """Takes as long as reading the files unless the hasher knows them; may run in a thread."""
    weights = [*model.weight_files, *_present(model.files, WEIGHT_ROLES)]
    tokenizer = _present(model.files, TOKENIZER_ROLES)
    hashes = hasher.hash_files([*weights, *tokenizer])
    return Hashes(
        weights=_hash_lines(f"{hashes[path]}  {path.name}" for path in weights),
        tokenizer=_hash_lines(f"{hashes[path]}  {path.name}" for path in tokenizer),
        template=hash_template(model.chat_template),
        server=hash_server(),
    )


def identify(model: ModelDirectory, runner: RunnerFacts, hasher: FileHasher) -> Identity:
    """Everything at once. Call `hash_model` earlier, in a thread, and this takes no time."""
    hashes = hash_model(model, hasher)
    return Identity(
        model=model.name,
        weights=hashes.weights,
        tokenizer=hashes.tokenizer,
        template=hashes.template,
        server=hashes.server,
        generation=runner.generation,
        version=appliance.__version__,
        engine=runner.engine,
        dtype=runner.dtype,
        device=runner.device,
        num_threads=runner.num_threads,
        isa=describe_isa(),
        arithmetic=hash_arithmetic(runner, describe_isa()),
    )


def hash_template(source: str | None) -> str | None:
    return None if source is None else hashlib.sha256(source.encode()).hexdigest()


def hash_server(root: Path | None = None) -> str:
    """The hash of the package, this one or that at `root`, and of what it needs for numbers."""
    return _hash_lines([*_source_lines(root), *_version_lines(NUMERIC_DISTRIBUTIONS)])


def hash_arithmetic(runner: RunnerFacts, isa: str, root: Path | None = None) -> str:
    """The hash of what turns token ids into an answer's bits, without what it does not matter to.

    Compiled kernels are left out: they compute what their source says, whatever compiled it.
    """
    unused = UNUSED_DISTRIBUTIONS.get(runner.engine, set())
    used = [name for name in NUMERIC_DISTRIBUTIONS if name not in unused]
    machine = (
        "any" if runner.is_portable else f"{runner.device}, {runner.num_threads} threads, {isa}"
    )
    code = [line for line in _source_lines(root) if not line.endswith(".so")]
    facts = [f"{runner.engine}  engine", f"{runner.dtype}  dtype", f"{machine}  machine"]
    return _hash_lines([*code, *_version_lines(used), *facts])


def _source_lines(root: Path | None) -> list[str]:
    return _hash_sources(root) if root is not None else _hash_own_sources()


@cache
def _hash_own_sources() -> list[str]:
    """Read once: what is imported stays as it was."""
    return _hash_sources(PACKAGE)


def _hash_sources(root: Path) -> list[str]:
    files = sorted(path for path in root.rglob("*") if path.is_file() and _is_source(path, root))
    return [f"{_hash_file(path)}  {path.relative_to(root).as_posix()}" for path in files]


def _version_lines(distributions: Iterable[str]) -> list[str]:
    return [f"{_installed_version(name)}  {name}" for name in distributions]


def _is_source(path: Path, root: Path) -> bool:
    parts = path.relative_to(root).parts
    is_hidden = any(part.startswith(".") for part in parts)
    return not (is_hidden or parts[0] == "embedded" or "__pycache__" in parts)


def _installed_version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def describe_isa(cpu_info: Path = Path("/proc/cpuinfo"), machine: str | None = None) -> str:
    """The machine and its instruction sets that matter to arithmetic, such as `x86-64 avx2 fma`."""
    machine = machine or platform.machine()
    features = _cpu_features(cpu_info)
    found = [name for name in NUMERIC_FEATURES if name in features]
    return " ".join([_MACHINES.get(machine, machine), *found])


def _cpu_features(cpu_info: Path) -> set[str]:
    """Of the first processor; none where the system does not say."""
    try:
        lines = cpu_info.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return set()
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() in {"flags", "Features"}:
            return set(value.split())
    return set()


def _present(files: Mapping[str, Path], roles: Iterable[str]) -> list[Path]:
    return [files[role] for role in roles if role in files]


def _hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _hash_lines(lines: Iterable[str]) -> str:
    text = "".join(f"{line}\n" for line in sorted(lines))
    return hashlib.sha256(text.encode()).hexdigest()
