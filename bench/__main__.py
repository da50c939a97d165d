"""Runs the bench named on the command line, with its own flags behind the name."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from bench import compare, keys, startup, verify

BENCHES: dict[str, Callable[[Sequence[str]], int]] = {
    "startup": startup.main,
    "keys": keys.main,
    "verify": verify.main,
    "compare": compare.main,
}


def main(arguments: Sequence[str]) -> int:
    name = arguments[0] if arguments else ""
    if name in BENCHES:
        return BENCHES[name](arguments[1:])
    known = ", ".join(BENCHES)
    print(f"{name!r} is not a bench. Known: {known} (--help says more).", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
