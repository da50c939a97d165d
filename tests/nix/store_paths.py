"""Builds packages over the stand-in and prints where they lie in the store.

    python -m tests.nix.store_paths [NAME...]

One line a package, `NAME PATH`, then `host PATH...`: what the stand-in's packages point at outside
of the store, which has to be there wherever the server is to run.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.nix import local_nix
from tests.nix.local_nix import HERE, STATE, LocalNix

DEFAULT = ("llama-server-lean", "llama-model")


def build(nix: LocalNix, name: str) -> Path:
    """Build a package and keep it from the garbage collector."""
    link = STATE / "result" / name
    link.parent.mkdir(exist_ok=True)
    standin = ["--arg", "standin", str(STATE / "standin")]
    return nix.build(HERE / "packages.nix", *standin, "-A", name, "-o", link)


def main(names: list[str]) -> int:
    if lacking := local_nix.missing():
        print(f"This needs {', '.join(lacking)}.", file=sys.stderr)
        return 1
    nix = local_nix.prepare()
    for name in names or DEFAULT:
        print(name, build(nix, name))
    print("host", *local_nix.host_paths())
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
