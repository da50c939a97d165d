"""Compiles the native kernels beside their sources, in the environment this runs in."""

from __future__ import annotations

import platform

from appliance.engine.kernels import build

compiler = build.find_compiler()
if compiler is None:
    raise SystemExit("no C compiler on the PATH")
name = f"kernels-{platform.machine()}-{build.hash_sources()[:16]}.so"
build.build(compiler, build.SOURCE_DIRECTORY / name)
found = build.load_library(None)
print(name, found.reason)
if found.library is None or found.reason != "came with the package":
    raise SystemExit("the kernels that were just compiled cannot be loaded")
