"""States what is running: hashes of weights, tokenizer, template and server, and the machine.

weights    the safetensors files, config.json and generation_config.json: all that decides which
           token comes next and which one ends an answer
tokenizer  tokenizer.json, tokenizer_config.json and special_tokens_map.json: all that decides which
           token ids a text becomes
template   the SHA-256 of the chat template's source itself; None without a template
server     every file of this package but the embedded model and caches, named from the package's
           root, and a line `<version>  <distribution>` for each dependency that touches numbers or
           token ids

All but the template are in-toto's `dirHash`: the SHA-256 of what sha256sum prints for the files in
order of their names. In the model directory, names in the order of `LC_ALL=C sort`:
    sha256sum <names> | sha256sum

root       of the whole model directory, as OpenSSF model signing has it: the SHA-256 of the files'
           raw digests in order of their paths, which is the subject of a `model_signing` bundle;
           None where files that the server does not read are too large to hash at a start

The fingerprint is one hash over what an answer's bits depend on, and nothing else: servers that
share it answer alike. Beside weights, tokenizer and template that is the numeric code, those of the
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
    from collections.abc import Container, Iterable, Mapping

    from appliance.engine.runner import RunnerInfo
    from appliance.models.directory import ModelDirectory
    from appliance.models.hashing import FileHasher

PACKAGE = Path(__file__).parents[1]
SHORT_LENGTH = 12
WEIGHT_ROLES = ("config", "generation_config")
TOKENIZER_ROLES = ("tokenizer", "tokenizer_config", "special_tokens_map")
NUMERIC_DISTRIBUTIONS = ("llguidance", "numpy", "tokenizers", "torch", "transformers")
# The rooms of this package that turn a text into an answer's bits; all others leave it as it is.
NUMERIC_ROOMS = ("engine", "text", "completion", "models/directory")
UNUSED_DISTRIBUTIONS = {"native": {"torch", "transformers"}, "torch": {"transformers"}}

# What model signing leaves out: the signature itself, and what belongs to version control.
UNSIGNED = frozenset({"model.sig", ".git", ".gitattributes", ".github", ".gitignore"})
MAX_UNREAD_BYTES = 64 * 2**20

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
    root: str | None
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
        """Return the hashes in full, and the root that model signing signs."""
        return {
            "weights": self.weights,
            "tokenizer": self.tokenizer,
            "template": self.template,
            "server": self.server,
            "root": self.root,
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
class Hashes:
    """What is hashed before a runner exists; see the module's docstring for what each covers."""

    weights: str
    tokenizer: str
    template: str | None
    server: str
    root: str | None


def hash_model(model: ModelDirectory, hasher: FileHasher) -> Hashes:
    """Takes as long as reading the files unless the hasher knows them; may run in a thread."""
    weights = [*model.weight_files, *_present(model.files, WEIGHT_ROLES)]
    tokenizer = _present(model.files, TOKENIZER_ROLES)
    signed = _signed_files(model.path, {*model.weight_files, *model.files.values()})
    hashes = hasher.hash_files([*weights, *tokenizer, *(signed or ())])
    return Hashes(
        weights=_dir_hash((path.name, hashes[path]) for path in weights),
        tokenizer=_dir_hash((path.name, hashes[path]) for path in tokenizer),
        template=hash_template(model.chat_template),
        server=hash_server(),
        root=None if signed is None else _signing_root(hashes[path] for path in signed),
    )


def identify(
    model: ModelDirectory, runner: RunnerInfo, hasher: FileHasher, generation: str | None = None
) -> Identity:
    """Everything at once. Call `hash_model` earlier, in a thread, and this takes no time."""
    hashes = hash_model(model, hasher)
    isa = describe_isa()
    return Identity(
        model=model.name,
        weights=hashes.weights,
        tokenizer=hashes.tokenizer,
        template=hashes.template,
        server=hashes.server,
        root=hashes.root,
        generation=generation,
        version=appliance.__version__,
        engine=runner.name,
        dtype=runner.dtype,
        device=runner.device,
        num_threads=runner.num_threads,
        isa=isa,
        arithmetic=hash_arithmetic(runner, isa),
    )


def _signed_files(directory: Path, read: Container[Path]) -> list[Path] | None:
    """Return the files that model signing signs, in its order, or None if reading them takes long.

    Those that the server reads are hashed anyhow.
    """
    found = (path for path in directory.rglob("*") if path.is_file())
    names = {path.relative_to(directory).parts: path for path in found}
    signed = {parts: path for parts, path in names.items() if parts[0] not in UNSIGNED}
    unread = sum(path.stat().st_size for path in signed.values() if path not in read)
    return [signed[parts] for parts in sorted(signed)] if unread <= MAX_UNREAD_BYTES else None


def _signing_root(digests: Iterable[str]) -> str:
    return hashlib.sha256(b"".join(map(bytes.fromhex, digests))).hexdigest()


def hash_template(source: str | None) -> str | None:
    return None if source is None else hashlib.sha256(source.encode()).hexdigest()


def hash_server(root: Path | None = None) -> str:
    """The hash of the package, this one or that at `root`, and of what it needs for numbers."""
    return _dir_hash([*_source_hashes(root).items(), *_versions(NUMERIC_DISTRIBUTIONS)])


def hash_arithmetic(runner: RunnerInfo, isa: str, root: Path | None = None) -> str:
    """The hash of what turns token ids into an answer's bits, without what it does not matter to.

    Compiled kernels are left out: they compute what their source says, whatever compiled it.
    """
    unused = UNUSED_DISTRIBUTIONS.get(runner.name, set())
    used = [name for name in NUMERIC_DISTRIBUTIONS if name not in unused]
    machine = (
        "any" if runner.is_portable else f"{runner.device}, {runner.num_threads} threads, {isa}"
    )
    code = [item for item in _source_hashes(root).items() if _is_numeric(item[0])]
    facts = [("engine", runner.name), ("dtype", runner.dtype), ("machine", machine)]
    return _dir_hash([*code, *_versions(used), *facts])


def _is_numeric(name: str) -> bool:
    return name.startswith(tuple(f"{room}/" for room in NUMERIC_ROOMS)) and name[-3:] != ".so"


def _source_hashes(root: Path | None) -> Mapping[str, str]:
    return _hash_sources(root) if root is not None else _hash_own_sources()


@cache
def _hash_own_sources() -> Mapping[str, str]:
    """Read once: what is imported stays as it was."""
    return _hash_sources(PACKAGE)


def _hash_sources(root: Path) -> Mapping[str, str]:
    files = (path for path in root.rglob("*") if path.is_file() and _is_source(path, root))
    return {path.relative_to(root).as_posix(): _hash_file(path) for path in files}


def _versions(distributions: Iterable[str]) -> list[tuple[str, str]]:
    return [(name, _installed_version(name)) for name in distributions]


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


def _dir_hash(items: Iterable[tuple[str, str]]) -> str:
    """Return in-toto's dirHash of names and digests; names in order of their bytes."""
    lines = (f"{digest}  {name}\n" for name, digest in sorted(items))
    return hashlib.sha256("".join(lines).encode()).hexdigest()
