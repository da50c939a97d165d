"""Builds with Nix what the generations are made of; notes where it lies in packages.json."""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.nix import local_nix
from tests.nix.local_nix import STATE, LocalNix

ROOT = Path(__file__).parents[3]
EMBEDDED = ROOT / "server" / "appliance" / "embedded"
NOTES = ROOT / "build" / "cluster" / "packages.json"
EXPRESSION = Path(__file__).with_name("packages.nix")
CHANGED_TENSOR = "model.layers.0.self_attn.o_proj.weight"


@dataclass(frozen=True)
class Package:
    """A store path, and all that it needs."""

    path: str
    closure: list[str]


@dataclass(frozen=True)
class Packages:
    """Two servers' worth of models, one server, and what of the machine itself they stand on."""

    server: Package
    model: Package
    other_model: Package
    host: list[str]


def main() -> int:
    if lacking := local_nix.missing():
        print(f"The cluster tests need {', '.join(lacking)}.", file=sys.stderr)
        return 1
    nix = local_nix.prepare()
    other = write_other_model(NOTES.parent / "other-model")
    packages = Packages(
        server=build(nix, "llama-server-lean"),
        model=build(nix, "llama-model"),
        other_model=build(nix, "other-model", "--arg", "lock", str(other)),
        host=[str(path) for path in local_nix.host_paths()],
    )
    NOTES.write_text(json.dumps(asdict(packages), indent=1))
    return 0


def build(nix: LocalNix, name: str, *arguments: str) -> Package:
    """Kept from the garbage collector by the link."""
    link = STATE / "result" / name
    link.parent.mkdir(parents=True, exist_ok=True)
    standin = ["--arg", "standin", str(STATE / "standin")]
    path = nix.build(EXPRESSION, *standin, *arguments, "-A", name, "-o", link)
    return Package(str(path), nix.run("nix-store", "--query", "--requisites", path).splitlines())


def load_packages() -> Packages:
    noted = json.loads(NOTES.read_text())
    kinds = {name: Package(**noted[name]) for name in ("server", "model", "other_model")}
    return Packages(**kinds, host=noted["host"])


def write_other_model(folder: Path) -> Path:
    """Pebble without its first attention, and the lock of that: it answers differently."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(EMBEDDED, folder, ignore=shutil.ignore_patterns("*.md", "*.lock.json"))
    blank_tensor(folder / "model.safetensors", CHANGED_TENSOR)
    files = {}
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        files[path.name] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    listing = "".join(f"{pin['sha256']}  {name}\n" for name, pin in files.items())
    lock = {
        "lock": 1,
        "name": "pebble",
        "repository": "llama-appliance/pebble",
        "revision": hashlib.sha256(listing.encode()).hexdigest()[:40],
        "license": "MIT",
        "source": folder.name,
        "files": files,
    }
    path = folder.with_suffix(".lock.json")
    path.write_text(json.dumps(lock))
    return path


def blank_tensor(path: Path, name: str) -> None:
    with path.open("r+b") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        start, end = json.loads(file.read(length))[name]["data_offsets"]
        file.seek(8 + length + start)
        file.write(bytes(end - start))


if __name__ == "__main__":
    raise SystemExit(main())
