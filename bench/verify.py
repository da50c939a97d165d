"""How fast weights are verified against their hashes: by the server, and by Nix where it is."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from appliance.models.hashing import FileHasher
from bench.report import write

RUNS = 5
NUM_SHARDS = 4
SHARD_BYTES = 256 * 2**20
GB = 10**9


@dataclass(frozen=True, slots=True)
class Pass:
    """One verification of all files, in seconds by the clock and of all processors."""

    wall_s: float
    cpu_s: float


def main(_: Sequence[str] = ()) -> int:
    print(f"{RUNS} verifications of {NUM_SHARDS} files of {SHARD_BYTES >> 20} MiB, in memory")
    with tempfile.TemporaryDirectory(prefix="bench-verify-") as directory:
        shards = [write_shard(Path(directory, f"shard-{i}.bin")) for i in range(NUM_SHARDS)]
        ways: dict[str, Callable[[], object]]
        ways = {"server": lambda: FileHasher().hash_files(shards)}
        if shutil.which("nix-store"):
            ways["nix-store --verify-path"] = nix_verification(Path(directory), shards)
        passes = measure(ways)
        subprocess.run(["chmod", "-R", "u+w", directory], check=True)  # store paths are read-only
    figures = {way: summary(each) for way, each in passes.items()}
    for way, speed in figures.items():
        print(f"  {way}: {speed}")
    total = NUM_SHARDS * SHARD_BYTES
    print(f"written to {write('verify', {'bytes': total, 'gb_per_s': figures})}")
    return 0


def write_shard(path: Path) -> Path:
    path.write_bytes(os.urandom(2**20) * (SHARD_BYTES >> 20))
    return path


def nix_verification(directory: Path, shards: list[Path]) -> Callable[[], object]:
    """Over a store of its own, so that nothing of the bench stays."""
    environ = {**os.environ, "NIX_REMOTE": str(directory / "store")}
    nix_store = ["nix-store", "--option", "build-users-group", ""]
    added = subprocess.run(
        [*nix_store, "--add-fixed", "sha256", *shards],
        env=environ,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    return lambda: subprocess.run([*nix_store, "--verify-path", *added], env=environ, check=True)


def measure(ways: dict[str, Callable[[], object]]) -> dict[str, list[Pass]]:
    """Measures in turns, so that other load on the machine meets every way."""
    for verify in ways.values():
        verify()  # warms the page cache
    passes: dict[str, list[Pass]] = {way: [] for way in ways}
    for _ in range(RUNS):
        for way, verify in ways.items():
            before = os.times()
            verify()
            after = os.times()
            cpu_s = sum(after[:4]) - sum(before[:4])  # ours and our children's
            passes[way].append(Pass(after.elapsed - before.elapsed, cpu_s))
    return passes


def summary(passes: list[Pass]) -> dict[str, float]:
    def speed(seconds: float) -> float:
        return round(NUM_SHARDS * SHARD_BYTES / seconds / GB, 2)

    return {
        "median": speed(statistics.median(each.wall_s for each in passes)),
        "best": speed(min(each.wall_s for each in passes)),
        "per processor": speed(statistics.median(each.cpu_s for each in passes)),
    }
