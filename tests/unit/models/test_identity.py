"""The identity changes with any byte that could change an answer, and with nothing else."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

import appliance
from appliance.engine.runner import RunnerInfo
from appliance.errors import ModelRefused
from appliance.models.directory import embedded_model_path, open_model
from appliance.models.hashing import CACHE_FILE, FileHasher
from appliance.models.identity import (
    NUMERIC_ROOMS,
    Hashes,
    Identity,
    describe_isa,
    hash_arithmetic,
    hash_model,
    hash_server,
    identify,
)
from tests.model_factory import change_json, write_model

FACTS = RunnerInfo(
    name="torch",
    vocab_size=8,
    max_context_tokens=8,
    block_size=16,
    num_blocks=1,
    num_parameters=1,
    weight_bytes=1,
    device="cpu",
    dtype="float32",
    num_threads=2,
)
OLD_NS = 1_000_000_000  # long before the test, so that the cache trusts the file


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "tiny")


def hashes_of(path: Path) -> Hashes:
    return hash_model(open_model(path), FileHasher())


def identity_of(path: Path) -> Identity:
    return identify(open_model(path), FACTS, FileHasher(), "7")


def changed(before: Hashes, after: Hashes) -> set[str]:
    names = ("weights", "tokenizer", "template")
    return {name for name in names if getattr(before, name) != getattr(after, name)}


def flip_last_weight(path: Path) -> None:
    content = bytearray((path / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (path / "model.safetensors").write_bytes(content)


def test_one_bit_of_a_weight_changes_the_weights_alone(model: Path) -> None:
    before = hashes_of(model)
    flip_last_weight(model)
    assert changed(before, hashes_of(model)) == {"weights"}


@pytest.mark.parametrize("name", ["config.json", "generation_config.json"])
def test_what_decides_about_tokens_belongs_to_the_weights(model: Path, name: str) -> None:
    before = hashes_of(model)
    (model / name).write_bytes((model / name).read_bytes() + b"\n")
    assert changed(before, hashes_of(model)) == {"weights"}


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_a_byte_of_the_tokenizer_changes_the_tokenizer_alone(model: Path, name: str) -> None:
    before = hashes_of(model)
    (model / name).write_bytes((model / name).read_bytes() + b"\n")
    assert changed(before, hashes_of(model)) == {"tokenizer"}


def test_a_byte_of_the_template_file_changes_the_template_alone(model: Path) -> None:
    (model / "chat_template.jinja").write_text("one")
    before = hashes_of(model)
    (model / "chat_template.jinja").write_text("two")
    assert changed(before, hashes_of(model)) == {"template"}


def test_files_that_are_never_read_change_nothing(model: Path) -> None:
    before = hashes_of(model)
    (model / "README.md").write_text("about")
    (model / "pytorch_model.bin").write_text("pickle")
    assert changed(before, hashes_of(model)) == set()


def test_place_and_time_of_the_files_change_nothing(model: Path, tmp_path: Path) -> None:
    before = hashes_of(model)
    os.utime(model / "model.safetensors", ns=(OLD_NS, OLD_NS))
    assert changed(before, hashes_of(model.rename(tmp_path / "moved"))) == set()


def test_without_a_template_there_is_no_template_hash(model: Path) -> None:
    change_json(model / "tokenizer_config.json", chat_template=None)
    found = identity_of(model)
    assert found.template is None
    assert found.short()["template"] is None


def test_anybody_can_compute_the_weights_hash_with_sha256sum(model: Path) -> None:
    command = "sha256sum config.json generation_config.json *.safetensors"
    pipeline = f"{command} | sha256sum"
    printed = subprocess.run(
        ["sh", "-c", pipeline], cwd=model, capture_output=True, text=True, check=True
    )
    assert printed.stdout.split()[0] == hashes_of(model).weights


def test_the_identity_says_who_answers_and_on_what(model: Path) -> None:
    found = identity_of(model)
    assert (found.model, found.generation, found.engine) == ("tiny", "7", "torch")
    assert (found.dtype, found.device, found.num_threads) == ("float32", "cpu", 2)
    assert found.version == appliance.__version__
    assert {len(value or "") for value in found.short().values()} == {12}
    assert found.weights.startswith(found.short()["weights"] or "-")


@pytest.mark.parametrize(
    "change", [{"weights": "0" * 64}, {"template": None}, {"arithmetic": "0" * 64}]
)
def test_the_fingerprint_changes_with_what_an_answer_depends_on(
    model: Path, change: dict[str, str | None]
) -> None:
    found = identity_of(model)
    assert len(found.fingerprint) == len("fp_") + 12
    assert replace(found, **change).fingerprint != found.fingerprint  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "change", [{"model": "other"}, {"generation": None}, {"num_threads": 3}, {"isa": "aarch64"}]
)
def test_the_fingerprint_is_the_same_whatever_else_changes(
    model: Path, change: dict[str, object]
) -> None:
    found = identity_of(model)
    assert replace(found, **change).fingerprint == found.fingerprint  # type: ignore[arg-type]


# What computes.


@pytest.mark.parametrize(
    "change",
    [
        {"name": "transformers"},
        {"dtype": "bfloat16"},
        {"num_threads": 3},
        {"device": "cuda:0 NVIDIA H200"},
    ],
)
def test_where_bits_depend_on_the_machine_the_arithmetic_names_it(
    change: dict[str, str | int],
) -> None:
    before = hash_arithmetic(FACTS, "x86-64 avx2")
    assert hash_arithmetic(replace(FACTS, **change), "x86-64 avx2") != before  # type: ignore[arg-type]
    assert hash_arithmetic(FACTS, "x86-64") != before


def test_where_bits_are_the_same_everywhere_it_names_their_kind_alone() -> None:
    here = replace(FACTS, name="native", dtype="int8", is_portable=True)
    there = replace(here, num_threads=64)
    assert hash_arithmetic(here, "x86-64 avx2") == hash_arithmetic(there, "aarch64 asimd")
    assert hash_arithmetic(here, "") != hash_arithmetic(replace(here, dtype="int4"), "")


def test_an_installation_without_torch_has_the_native_engine_s_arithmetic(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    native, torch = (replace(FACTS, name=name, is_portable=True) for name in ("native", "torch"))
    versions = dict.fromkeys(["llguidance", "numpy", "tokenizers", "torch"], "1")
    monkeypatch.setattr(
        "appliance.models.identity._installed_version", lambda name: versions.get(name, "")
    )
    before = hash_arithmetic(native, ""), hash_arithmetic(torch, "")
    versions["torch"] = "2"
    assert hash_arithmetic(native, "") == before[0]
    assert hash_arithmetic(torch, "") != before[1]
    versions["numpy"] = "2"
    assert hash_arithmetic(native, "") != before[0]


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of this package, without what no hash reads."""
    root = tmp_path / "appliance"
    shutil.copytree(
        Path(appliance.__file__).parent,
        root,
        ignore=shutil.ignore_patterns("embedded", "__pycache__", "*.so"),
    )
    return root


@pytest.mark.parametrize(
    "name",
    [
        "engine/sampler.py",
        "engine/native/kernels/forward.c",
        "engine/torch/llama.py",
        "text/tokenizer.py",
        "completion/service.py",
        "models/directory/weights.py",
    ],
)
def test_a_comment_in_the_numeric_core_changes_the_arithmetic(package: Path, name: str) -> None:
    before = hash_arithmetic(FACTS, "", package)
    assert before == hash_arithmetic(FACTS, "")
    with (package / name).open("a") as file:
        file.write("\n// a comment\n" if name.endswith(".c") else "\n# a comment\n")
    assert hash_arithmetic(FACTS, "", package) != before


def test_a_comment_in_any_other_file_leaves_the_arithmetic_and_changes_the_server(
    package: Path,
) -> None:
    core = {package / room for room in NUMERIC_ROOMS}
    others = [
        path for path in package.rglob("*") if path.is_file() and not core & {path, *path.parents}
    ]
    assert {"app.js", "errors.py", "wiring.py", "identity.py"} <= {path.name for path in others}
    before, server_before = hash_arithmetic(FACTS, "", package), hash_server(package)
    for path in others:
        with path.open("ab") as file:
            file.write(b"\n# a comment\n")
    assert hash_arithmetic(FACTS, "", package) == before
    assert hash_server(package) != server_before


def test_compiled_kernels_are_the_same_arithmetic_as_their_source(package: Path) -> None:
    before, server_before = hash_arithmetic(FACTS, "", package), hash_server(package)
    (package / "engine" / "native" / "kernels" / "kernels.so").write_text("compiled")
    assert hash_arithmetic(FACTS, "", package) == before
    assert hash_server(package) != server_before


# What model signing signs.


def test_the_root_is_the_subject_that_model_signing_signs() -> None:
    """Found by model-signing 1.1.1, whose order of paths and ignored files these are."""
    embedded = open_model(embedded_model_path())
    files = sorted(path for path in embedded.path.iterdir())
    digests = b"".join(hashlib.sha256(path.read_bytes()).digest() for path in files)
    assert hash_model(embedded, FileHasher()).root == hashlib.sha256(digests).hexdigest()
    assert (
        hash_model(embedded, FileHasher()).root
        == "8cf7a12193fd6e2b2b09531b359fd7dc5f24b4e09b5049635768f02d0f5454e1"
    )


def test_the_root_follows_every_file_but_signatures_and_version_control(model: Path) -> None:
    seen = [hashes_of(model).root]
    for name in ("model.sig", ".gitattributes", ".git/config"):
        (model / name).parent.mkdir(exist_ok=True)
        (model / name).write_text("x")
    assert hashes_of(model).root == seen[0]
    for name in ("README.md", "original/notes.txt"):
        (model / name).parent.mkdir(exist_ok=True)
        (model / name).write_text("x")
        seen.append(hashes_of(model).root)
    assert len(set(seen)) == 3


def test_there_is_no_root_where_unread_files_are_too_large_to_hash(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (model / "pytorch_model.bin").write_bytes(b"x" * 100)
    assert hashes_of(model).root is not None
    monkeypatch.setattr("appliance.models.identity.MAX_UNREAD_BYTES", 99)
    assert hashes_of(model).root is None


# The server's own hash.


def test_the_server_hash_follows_source_files_and_their_names(tmp_path: Path) -> None:
    (tmp_path / "api").mkdir()
    (tmp_path / "api" / "app.py").write_text("one")
    seen = {hash_server(tmp_path)}
    (tmp_path / "api" / "app.py").write_text("two")
    seen.add(hash_server(tmp_path))
    (tmp_path / "api" / "app.py").rename(tmp_path / "api" / "other.py")
    seen.add(hash_server(tmp_path))
    (tmp_path / "api" / "page.html").write_text("<p>")
    seen.add(hash_server(tmp_path))
    assert len(seen) == 4


def test_the_server_hash_leaves_out_the_embedded_model_and_caches(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("one")
    before = hash_server(tmp_path)
    for name in ("embedded/model.safetensors", "__pycache__/app.pyc", "api/__pycache__/x", ".swp"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    assert hash_server(tmp_path) == before


def test_the_server_hash_follows_the_versions_of_numeric_dependencies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = hash_server(tmp_path)
    monkeypatch.setattr("importlib.metadata.version", lambda name: f"0-{name}")
    assert hash_server(tmp_path) != before


# The machine.


@pytest.mark.parametrize(
    ("cpu_info", "machine", "isa"),
    [
        ("flags\t: fpu fma avx2 sse avx512_bf16\n", "x86_64", "x86-64 avx2 fma avx512_bf16"),
        ("Features\t: fp asimd bf16\n", "aarch64", "aarch64 asimd bf16"),
        ("flags : avx2\n\nflags : avx2 amx_bf16\n", "x86_64", "x86-64 avx2"),
        ("", "arm64", "aarch64"),
    ],
)
def test_the_instruction_sets_are_those_that_matter(
    tmp_path: Path, cpu_info: str, machine: str, isa: str
) -> None:
    (tmp_path / "cpuinfo").write_text(cpu_info)
    assert describe_isa(tmp_path / "cpuinfo", machine) == isa


def test_a_system_without_cpuinfo_still_has_a_name(tmp_path: Path) -> None:
    assert describe_isa(tmp_path / "absent", "arm64") == "aarch64"


# The cache of file hashes.


class CountingHasher(FileHasher):
    """Counts the bytes it reads, by way of its progress."""

    def __init__(self, cache_dir: Path | None) -> None:
        super().__init__(cache_dir, lambda done, _: self.seen.append(done))
        self.seen: list[int] = []

    @property
    def num_bytes(self) -> int:
        return max(self.seen, default=0)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "weights"
    path.write_bytes(b"some bytes")
    return path


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the cache trust files that were written just now."""
    monkeypatch.setattr("appliance.models.hashing.SETTLED_NS", 0)


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.mark.usefixtures("settled")
def test_an_unchanged_file_is_hashed_once(file: Path, tmp_path: Path) -> None:
    first, second = CountingHasher(tmp_path / "cache"), CountingHasher(tmp_path / "cache")
    assert first.hash_files([file]) == second.hash_files([file]) == {file: digest(b"some bytes")}
    assert (first.num_bytes, second.num_bytes) == (10, 0)


@pytest.mark.usefixtures("settled")
def test_a_changed_file_is_hashed_again_even_with_size_and_time_put_back(
    file: Path, tmp_path: Path
) -> None:
    status = file.stat()
    FileHasher(tmp_path / "cache").hash_files([file])
    file.write_bytes(b"SOME BYTES")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    found = FileHasher(tmp_path / "cache").hash_files([file])
    assert found == {file: digest(b"SOME BYTES")}


@pytest.mark.usefixtures("settled")
def test_a_file_put_in_place_of_another_is_hashed_again(file: Path, tmp_path: Path) -> None:
    FileHasher(tmp_path / "cache").hash_files([file])
    other = tmp_path / "other"
    other.write_bytes(b"other byte")
    other.replace(file)
    assert FileHasher(tmp_path / "cache").hash_files([file]) == {file: digest(b"other byte")}


def test_a_file_that_may_still_change_within_a_clock_tick_is_not_remembered(
    file: Path, tmp_path: Path
) -> None:
    FileHasher(tmp_path / "cache").hash_files([file])
    again = CountingHasher(tmp_path / "cache")
    again.hash_files([file])
    assert again.num_bytes == 10


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"sha256": 3}', '{"sha256": {"a": 1}}', "[" * 9999]
)
def test_a_damaged_cache_is_ignored_and_replaced(file: Path, tmp_path: Path, content: str) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / CACHE_FILE).write_text(content)
    assert FileHasher(cache).hash_files([file]) == {file: digest(b"some bytes")}
    again = CountingHasher(cache)
    again.hash_files([file])
    assert again.num_bytes == 0


@pytest.mark.usefixtures("settled")
def test_a_cache_that_others_can_write_is_not_believed(file: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    FileHasher(cache).hash_files([file])
    lie = (cache / CACHE_FILE).read_text().replace(digest(b"some bytes"), "0" * 64)
    (cache / CACHE_FILE).write_text(lie)
    assert FileHasher(cache).hash_files([file]) == {file: "0" * 64}
    (cache / CACHE_FILE).chmod(0o666)
    assert FileHasher(cache).hash_files([file]) == {file: digest(b"some bytes")}


@pytest.mark.usefixtures("settled")
def test_a_cache_that_cannot_be_written_is_done_without(file: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file where the directory should be")
    hasher = CountingHasher(tmp_path / "taken")
    assert hasher.hash_files([file]) == {file: digest(b"some bytes")}
    hasher.hash_files([file])
    assert hasher.seen == [10]


@pytest.mark.usefixtures("settled")
def test_the_cache_keeps_what_another_process_added(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(b"other")
    first, second = FileHasher(tmp_path / "cache"), FileHasher(tmp_path / "cache")
    second.hash_files([])  # has read the cache, still empty
    first.hash_files([file])
    second.hash_files([other])
    third = CountingHasher(tmp_path / "cache")
    third.hash_files([file, other])
    assert third.num_bytes == 0


@pytest.mark.usefixtures("settled")
def test_the_cache_is_private_and_leaves_nothing_else_behind(file: Path, tmp_path: Path) -> None:
    FileHasher(tmp_path / "cache").hash_files([file])
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [CACHE_FILE]
    assert (tmp_path / "cache" / CACHE_FILE).stat().st_mode & 0o077 == 0


def test_progress_ends_at_the_sum_of_all_files(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(b"12345")
    reports: list[tuple[int, int]] = []
    FileHasher(None, lambda done, total: reports.append((done, total))).hash_files([file, other])
    assert reports[-1] == (15, 15)


def test_a_file_that_is_not_there_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match=r"^gone cannot be read: No such file"):
        FileHasher().hash_files([tmp_path / "gone"])
