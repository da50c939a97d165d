"""The peers as the bench runs them: pinned, and asked for the same on the same files."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from bench import install
from bench.checkpoints import Checkpoint
from bench.install import LlamaSource, home_of, peer_names, versions
from bench.participant import Job, Participant
from bench.participants import PEERS, ik_llama_cpp, llama_cpp
from bench.plan import QUICK_PEERS
from bench.process import ProcessFailed

BENCH = """#!/bin/sh
echo "$0 $*" >> "{seen}"
echo '[{{"n_prompt": 512, "n_gen": 0, "samples_ts": [300.0, 100.0, 200.0]}},'
echo ' {{"n_prompt": 0, "n_gen": 128, "samples_ts": [30.0, 10.0]}}]'
"""
FORKS = [llama_cpp.PARTICIPANT, ik_llama_cpp.PARTICIPANT]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path))


def make_job(precision: str = "int8") -> Job:
    checkpoint = Checkpoint("S", Path("S-v3"), 100, 90, 4096)
    return Job(
        checkpoint=checkpoint,
        precision=precision,
        kind="single",
        num_threads=2,
        new_tokens=128,
        prompt_tokens=512,
        seconds=0.0,
        seed="0",
    )


def write_bench(name: str) -> Path:
    """A program that records how it was called and answers as llama-bench does."""
    program = home_of(name) / "build" / "bin" / "llama-bench"
    program.parent.mkdir(parents=True)
    seen = program.with_name("seen")
    program.write_text(BENCH.format(seen=seen))
    program.chmod(0o755)
    return seen


def ids(participant: Participant) -> str:
    return participant.name


def test_every_peer_s_packages_are_pinned_and_its_version_is_named() -> None:
    assert {peer.name for peer in PEERS} == set(peer_names())
    assert set(QUICK_PEERS) <= set(peer_names())
    for name in peer_names():
        lines = (install.PINS / f"{name}.txt").read_text().split()
        assert all("==" in line for line in lines)
        assert versions(name)


@pytest.mark.parametrize("participant", FORKS, ids=ids)
def test_one_sequence_is_timed_by_the_peer_s_own_llama_bench(participant: Participant) -> None:
    seen = write_bench(participant.name)
    assert participant.single is not None
    assert participant.single(make_job()) == {"prefill": 200.0, "decode": 20.0}
    called = seen.read_text()
    assert called.startswith(str(home_of(participant.name)))
    assert " -t 2 -r 5 -o json -p 512 -n 128" in called


def test_a_fork_is_measured_on_the_files_of_the_original() -> None:
    for precision in ("bf16", "int8", "int4"):
        files = set()
        for participant in FORKS:
            assert participant.can(make_job(precision))
            assert participant.serve is not None
            command = participant.serve(make_job(precision), 8000).command
            assert command[0] == str(home_of(participant.name) / "build" / "bin" / "llama-server")
            files.add(command[command.index("-m") + 1])
        assert files == {str(llama_cpp.gguf(make_job().checkpoint, precision))}


def test_a_fork_that_rearranges_weights_is_told_to_both_in_the_bench_and_as_a_server() -> None:
    seen = write_bench("ik_llama.cpp")
    ik_llama_cpp.TOOLS.single(make_job())
    assert "-rtr 1" in seen.read_text()
    assert "-rtr" in ik_llama_cpp.TOOLS.serve(make_job(), 8000).command


def test_a_file_that_is_there_is_not_made_again_nor_its_maker_installed() -> None:
    job = make_job()
    path = llama_cpp.gguf(job.checkpoint, "int8")
    path.write_bytes(b"made before")
    ik_llama_cpp.PARTICIPANT.prepare(job.checkpoint, "int8")
    assert path.read_bytes() == b"made before"
    assert not (home_of("llama.cpp") / "venv").exists()


def test_a_source_is_unpacked_with_the_files_that_its_sdist_leaves_out(tmp_path: Path) -> None:
    archive = tmp_path / "bindings-1.0.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        entry = tarfile.TarInfo("bindings-1.0/vendor/fork/CMakeLists.txt")
        tar.addfile(entry)
    python = Path(install.python_of("fork"))
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nmkdir -p "$8"\ncp "{archive}" "$8"\n')  # $8 is --dest
    python.chmod(0o755)
    source = LlamaSource(sdist="bindings==1.0", folder="fork", flags=(), missing={"a/b": "c\n"})
    source.unpack("fork", tmp_path / "log")
    assert (home_of("fork") / "source" / "CMakeLists.txt").exists()
    assert (home_of("fork") / "source" / "a" / "b").read_text() == "c\n"
    assert not (home_of("fork") / "sdist").exists()


def test_a_bench_that_fails_is_an_error_with_its_words() -> None:
    program = write_bench("ik_llama.cpp").with_name("llama-bench")
    program.write_text("#!/bin/sh\necho unknown model architecture >&2\nexit 1\n")
    with pytest.raises(ProcessFailed, match="unknown model architecture"):
        ik_llama_cpp.TOOLS.single(make_job())
