"""Compiles the library of a package: `python -m appliance.engine.native.kernels`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from appliance.engine.native.kernels.build import SOURCE_DIRECTORY, BuildError, prebuild


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m appliance.engine.native.kernels",
        description="Compile the native kernels under the name that a server looks for, so that it"
        " needs no C compiler. The library chooses among its instruction sets when it is loaded.",
    )
    parser.add_argument(
        "--out", metavar="DIR", type=Path, default=SOURCE_DIRECTORY, help="default: the package"
    )
    try:
        path = prebuild(parser.parse_args().out)
    except (BuildError, OSError) as error:
        sys.stderr.write(f"The kernels could not be built: {error}\n")
        return 1
    sys.stdout.write(f"{path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
