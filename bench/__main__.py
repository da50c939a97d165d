"""Runs the bench named on the command line, with its own flags behind the name."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from bench import compare, startup, verify


def main(arguments: Sequence[str]) -> int:
    name = arguments[0] if arguments else ""
    if name == "startup":
        return startup.main(arguments[1:])
    if name == "verify":
        verify.main()
        return 0
    if name == "compare":
        return compare.main(arguments[1:])
    print(
        f"{name!r} is not a bench. Known: startup, verify, compare (--help says more).",
        file=sys.stderr,
    )
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
