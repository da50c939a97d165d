"""Runs the benches named on the command line, or all of them."""

from __future__ import annotations

import sys

from bench import startup

BENCHES = {"startup": startup.main}


def main(names: list[str]) -> int:
    unknown = [name for name in names if name not in BENCHES]
    if unknown:
        print(f"{unknown[0]!r} is not a bench. Known: {', '.join(BENCHES)}.", file=sys.stderr)
        return 2
    for name in names or BENCHES:
        BENCHES[name]()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
