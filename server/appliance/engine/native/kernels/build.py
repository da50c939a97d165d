"""Compiles the native kernels once for each compiler and source, and finds them again."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from appliance.engine.native.kernels.library import NativeLibrary

if TYPE_CHECKING:
    from collections.abc import Iterable

logger = logging.getLogger(__name__)

SOURCE_DIRECTORY = Path(__file__).parent
COMPILERS = ("cc", "gcc", "clang")
# Every operation rounds as written: no contraction, nothing of -ffast-math.
FLAGS = ("-std=gnu11", "-fPIC", "-ffp-contract=off", "-fno-math-errno", "-Wall", "-Wextra")
LINK_FLAGS = ("-shared", "-pthread", "-lm")
BUILD_TIMEOUT_S = 300.0
BUILDING = ".building-"
MAX_UNUSED_S = 30 * 86400.0  # of a library that another version or compiler made


class Found(NamedTuple):
    """The library, or None; and a sentence that says where it came from or why there is none."""

    library: NativeLibrary | None
    reason: str


class BuildError(Exception):
    """The compiler refused."""


def load_library(cache_dir: Path | None) -> Found:
    """Load the library of the package, else the one in `cache_dir`, else compile one there."""
    prebuilt = SOURCE_DIRECTORY / prebuilt_name()
    packaged = _open(prebuilt, "came with the package") if prebuilt.exists() else None
    if packaged is not None and packaged.library is not None:
        return packaged
    compiler = find_compiler()
    if compiler is None:
        return packaged or Found(None, "there is no C compiler on the PATH (cc, gcc or clang)")
    try:
        directory = private_directory(cache_dir, "kernels")
        if directory is None:
            with tempfile.TemporaryDirectory(prefix="appliance-kernels-") as temporary:
                return _build_and_open(compiler, Path(temporary))
        return _build_and_open(compiler, directory)
    except (BuildError, OSError, subprocess.SubprocessError) as error:
        return Found(None, f"the kernels could not be built with {compiler}: {error}")


def prebuilt_name() -> str:
    """Name the library of a package after machine and sources, so that a stale one has another."""
    return f"kernels-{platform.machine()}-{hash_sources()[:16]}.so"


def prebuild(directory: Path) -> Path:
    """Compile the library of a package, and check that it loads."""
    compiler = find_compiler()
    if compiler is None:
        raise BuildError(f"there is no C compiler on the PATH ({', '.join(COMPILERS)})")
    target = directory / prebuilt_name()
    build(compiler, target)
    target.chmod(0o755)  # every user may load it
    found = _open(target, "just built")
    if found.library is None:
        raise BuildError(found.reason)
    return target


def find_compiler() -> Path | None:
    found = (shutil.which(name) for name in COMPILERS)
    return next((Path(path) for path in found if path is not None), None)


def source_files() -> list[Path]:
    """List sources, headers, and the templates (.inc) that are compiled for each variant."""
    return sorted(path for kind in ("*.c", "*.h", "*.inc") for path in SOURCE_DIRECTORY.glob(kind))


def hash_sources() -> str:
    """Hash every source file and the flags: a prebuilt library must agree with them."""
    digest = hashlib.sha256(" ".join((*FLAGS, *LINK_FLAGS)).encode())
    for path in source_files():
        content = path.read_bytes()
        digest.update(f"{path.name} {len(content)} ".encode() + content)
    return digest.hexdigest()


def build(compiler: Path, target: Path, *, extra_flags: Iterable[str] = ()) -> None:
    """Compile every source side by side and put the library at `target` in one step."""
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=BUILDING) as temporary:
        directory, flags = Path(temporary), [*FLAGS, *extra_flags]
        sources = sorted(SOURCE_DIRECTORY.glob("*.c"))
        objects = [directory / f"{source.stem}.o" for source in sources]
        # No other directory may be writable.
        command: list[Path | str] = ["env", f"TMPDIR={directory}", compiler]
        _run_all(
            [*command, *flags, _optimisation(source), "-c", source, "-o", object_]
            for source, object_ in zip(sources, objects, strict=True)
        )
        library = directory / "library.so"
        _run_all([[*command, *extra_flags, *objects, *LINK_FLAGS, "-o", library]])
        library.chmod(0o700)
        library.replace(target)


def _optimisation(source: Path) -> str:
    """Choose the level: portable variants exist for their bits, and vectorising them is slow."""
    return "-O1" if source.stem.endswith("_scalar") else "-O3"


def _run_all(commands: Iterable[list[Path | str]]) -> None:
    processes = [
        subprocess.Popen(  # noqa: S603 - our own sources, and the compiler on the user's PATH
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for command in commands
    ]
    outputs = [process.communicate(timeout=BUILD_TIMEOUT_S)[0] for process in processes]
    for process, output in zip(processes, outputs, strict=True):
        if process.returncode:
            raise BuildError(output.strip()[:2000])


def _build_and_open(compiler: Path, directory: Path) -> Found:
    version = subprocess.run(  # noqa: S603
        [compiler, "--version"], capture_output=True, text=True, check=True, timeout=60
    ).stdout.splitlines()[0]
    parts = (hash_sources(), version, platform.machine())
    key = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
    target = directory / f"kernels-{key}.so"
    if target.exists() and (found := _open(target, f"from {target}")).library is not None:
        os.utime(target)  # when it was last used
        return found
    logger.info("compiling the kernels, once", extra={"target": target, "compiler": version})
    _remove_unused(directory)
    started_at_s = time.monotonic()
    build(compiler, target)
    return _open(target, f"compiled by {version} in {time.monotonic() - started_at_s:.1f} s")


def _remove_unused(directory: Path) -> None:
    """Remove leftovers of starts that were ended while compiling, and unused libraries.

    A process that runs such a library keeps it: a file without a name lives while it is mapped.
    """
    with contextlib.suppress(OSError):  # another start removes it at the same time
        for path in directory.glob(f"{BUILDING}*"):
            if _unused_for_s(path) > BUILD_TIMEOUT_S:
                shutil.rmtree(path)
        for path in directory.glob("kernels-*.so"):
            if _unused_for_s(path) > MAX_UNUSED_S:
                path.unlink(missing_ok=True)


def _unused_for_s(path: Path) -> float:
    return time.time() - path.stat().st_mtime


def _open(path: Path, how: str) -> Found:
    try:
        return Found(NativeLibrary(path), how)
    except (OSError, AttributeError) as error:  # no library, not for this machine, or a stale one
        return Found(None, f"{path} cannot be loaded: {error}")


def private_directory(cache_dir: Path | None, name: str) -> Path | None:
    """Return a directory that only this user can write code or weights to, or None."""
    if cache_dir is None:
        return None
    directory = cache_dir / name
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return None
    status = directory.stat()
    is_private = status.st_uid == os.geteuid() and not status.st_mode & 0o022
    return directory if is_private and os.access(directory, os.W_OK) else None
