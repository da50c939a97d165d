"""How fast weights are verified against their hashes: by the server, and by Nix where it is."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from appliance.file_hashes import FileHasher
from bench.report import write

RUNS = 5
NUM_SHARDS = 4
SHARD_BYTES = 256 * 2**20
GB = 10**9


def main() -> None:
    print(f"{RUNS} verifications of {NUM_SHARDS} files of {SHARD_BYTES >> 20} MiB, in memory")
    with tempfile.TemporaryDirectory(prefix="bench-verify-") as directory:
        shards = [write_shard(Path(directory, f"shard-{i}.bin")) for i in range(NUM_SHARDS)]
        ways: dict[str, Callable[[], object]]
        ways = {"server": lambda: FileHasher().hash_files(shards)}
        if shutil.which("nix-store"):
            ways["nix-store --verify-path"] = nix_verification(Path(directory), shards)
        figures = {way: measure(verify) for way, verify in ways.items()}
        subprocess.run(["chmod", "-R", "u+w", directory], check=True)  # store paths are read-only
    for way, seconds in figures.items():
        print(f"  {way}: {NUM_SHARDS * SHARD_BYTES / statistics.median(seconds) / GB:.2f} GB/s")
    print(f"written to {write('verify', summary(figures))}")


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


def measure(verify: Callable[[], object]) -> list[float]:
    seconds = []
    verify()  # warms the page cache
    for _ in range(RUNS):
        began_s = time.monotonic()
        verify()
        seconds.append(time.monotonic() - began_s)
    return seconds


def summary(figures: dict[str, list[float]]) -> dict[str, object]:
    total = NUM_SHARDS * SHARD_BYTES
    return {
        "bytes": total,
        "gb_per_s": {
            way: {
                "median": round(total / statistics.median(seconds) / GB, 2),
                "best": round(total / min(seconds) / GB, 2),
            }
            for way, seconds in figures.items()
        },
    }
