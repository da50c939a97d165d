"""How the native kernels are compiled, found again, and done without."""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import sys
import threading
import tomllib
from pathlib import Path

import pytest

import appliance
from appliance.engine.native.kernels import build as building
from appliance.engine.native.kernels.build import build, find_compiler, load_library
from appliance.engine.native.kernels.library import Layer, Model, Weight
from tests.kernel_cache import KERNEL_CACHE

SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-g")

needs_compiler = pytest.mark.skipif(find_compiler() is None, reason="there is no C compiler")


@pytest.fixture(scope="module")
def whole_library() -> Path:
    library = load_library(KERNEL_CACHE).library
    assert library is not None
    return library.path


@pytest.fixture
def cache_dir(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def quick_compiler(whole_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiler whose output is always the library that a real one has made."""
    directory = tmp_path / "bin"
    directory.mkdir()
    write_compiler(directory, f'for target; do :; done; cat "{whole_library}" > "$target"')
    monkeypatch.setenv("PATH", f"{directory}:/bin:/usr/bin")


def write_compiler(directory: Path, script: str) -> None:
    compiler = directory / "cc"
    compiler.write_text(
        f'#!/bin/sh\n[ "$1" = --version ] && {{ echo quick 1.0; exit; }}\n{script}\n'
    )
    compiler.chmod(0o755)


@needs_compiler
@pytest.mark.usefixtures("quick_compiler")
def test_the_second_time_nothing_is_compiled(
    cache_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "appliance")
    assert load_library(cache_dir).reason.startswith("compiled by quick 1.0 in ")
    assert caplog.messages == ["compiling the kernels, once"]
    (before,) = (cache_dir / "kernels").iterdir()
    found = load_library(cache_dir)
    assert found.library is not None
    assert found.library.path == before
    assert found.reason == f"from {before}"
    assert len(caplog.messages) == 1


@needs_compiler
@pytest.mark.usefixtures("quick_compiler")
def test_a_library_that_was_spoiled_is_compiled_again(cache_dir: Path, tmp_path: Path) -> None:
    load_library(cache_dir)
    (whole,) = (cache_dir / "kernels").iterdir()
    (tmp_path / "kernels").mkdir(mode=0o700)
    (tmp_path / "kernels" / whole.name).write_bytes(b"not a library")
    found = load_library(tmp_path)
    assert found.library is not None
    assert found.reason.startswith("compiled by")


@needs_compiler
@pytest.mark.usefixtures("quick_compiler")
def test_what_a_start_left_that_was_ended_while_it_compiled_is_removed(tmp_path: Path) -> None:
    dead, young = (tmp_path / "kernels" / f".building-{name}" for name in ("dead", "young"))
    for path in (dead, young):
        path.mkdir(mode=0o700, parents=True)
    (tmp_path / "kernels").chmod(0o700)
    os.utime(dead, (0, 0))
    assert load_library(tmp_path).library is not None
    assert not dead.exists()
    assert young.exists()


@needs_compiler
@pytest.mark.usefixtures("quick_compiler")
def test_libraries_that_no_start_used_for_a_month_go_when_another_is_compiled(
    tmp_path: Path,
) -> None:
    load_library(tmp_path)
    (kept,) = (tmp_path / "kernels").iterdir()
    old, recent = (kept.with_name(f"kernels-{name}.so") for name in ("old", "recent"))
    for path in (old, recent):
        path.write_bytes(b"of another version")
    for path in (old, kept):
        os.utime(path, (0, 0))
    load_library(tmp_path)
    assert old.exists()
    assert kept.stat().st_mtime > 0
    kept.unlink()
    load_library(tmp_path)
    assert not old.exists()
    assert recent.exists()


@needs_compiler
def test_the_compiler_writes_nowhere_but_where_the_library_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = tmp_path / "seen"
    write_compiler(tmp_path, f'echo "$TMPDIR" >> "{seen}"; exit 1')
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    load_library(tmp_path / "cache")
    directories = {Path(line).parent for line in seen.read_text("utf-8").splitlines()}
    assert directories == {tmp_path / "cache" / "kernels"}


@needs_compiler
@pytest.mark.usefixtures("quick_compiler")
def test_a_library_of_the_package_that_does_not_load_is_compiled_instead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was made for another C library, say."""
    package = tmp_path / "package"
    package.mkdir()
    for source in building.source_files():
        (package / source.name).write_bytes(source.read_bytes())
    monkeypatch.setattr(building, "SOURCE_DIRECTORY", package)
    (package / building.prebuilt_name()).write_bytes(b"not a library")
    assert load_library(None).reason.startswith("compiled by")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "cannot be loaded" in load_library(None).reason


def test_what_the_sources_include_is_hashed_and_comes_with_the_package() -> None:
    project = tomllib.loads((Path(__file__).parents[5] / "pyproject.toml").read_text("utf-8"))
    packaged = project["tool"]["setuptools"]["package-data"]["appliance"]
    files = building.source_files()
    text = "\n".join(file.read_text("utf-8") for file in files)
    included = set(re.findall(r'^#include "(.+)"', text, re.MULTILINE))
    assert included
    assert included <= {file.name for file in files}
    for file in files:
        relative = file.relative_to(Path(appliance.__file__).parent)
        assert any(relative.match(pattern) for pattern in packaged), file.name


@pytest.mark.parametrize("name", ["linear.c", "linear.h", "linear_tiles.inc"])
def test_a_change_of_any_source_file_changes_the_hash(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for source in building.source_files():
        (tmp_path / source.name).write_bytes(source.read_bytes())
    before = building.hash_sources()
    monkeypatch.setattr(building, "SOURCE_DIRECTORY", tmp_path)
    assert building.hash_sources() == before
    with (tmp_path / name).open("a") as file:
        file.write("/* changed */\n")
    assert building.hash_sources() != before


@needs_compiler
@pytest.mark.usefixtures("quick_compiler")
def test_starts_at_the_same_time_leave_one_library(tmp_path: Path) -> None:
    found: list[str] = []
    threads = [
        threading.Thread(target=lambda: found.append(load_library(tmp_path).reason))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(reason.startswith(("compiled by", "from")) for reason in found)
    assert len(list((tmp_path / "kernels").iterdir())) == 1


@needs_compiler
@pytest.mark.usefixtures("quick_compiler")
def test_a_directory_that_others_may_write_to_is_not_trusted(tmp_path: Path) -> None:
    (tmp_path / "kernels").mkdir()
    (tmp_path / "kernels").chmod(0o777)
    assert load_library(tmp_path).library is not None
    assert list((tmp_path / "kernels").iterdir()) == []


def test_without_a_compiler_the_reason_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = load_library(tmp_path)
    assert found.library is None
    assert "no C compiler" in found.reason


def test_a_compiler_that_fails_is_told_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_compiler(tmp_path, "echo no; exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    found = load_library(tmp_path)
    assert found.library is None
    assert "could not be built" in found.reason


@needs_compiler
def test_a_library_that_came_with_the_package_needs_no_compiler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "kernels"
    package.mkdir()
    for source in building.source_files():
        (package / source.name).write_bytes(source.read_bytes())
    subprocess.run(
        [sys.executable, "-m", "appliance.engine.native.kernels", "--out", package],
        check=True,
        capture_output=True,
        timeout=300,
    )
    monkeypatch.setattr(building, "SOURCE_DIRECTORY", package)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = load_library(None)
    assert found.library is not None
    assert found.reason == "came with the package"
    (package / "linear.c").write_text("changed")
    assert load_library(None).library is None  # made of other sources


def test_building_for_a_package_says_what_it_lacks(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "appliance.engine.native.kernels", "--out", tmp_path],
        check=False,
        capture_output=True,
        text=True,
        env={"PATH": str(tmp_path), "PYTHONPATH": ":".join(filter(None, sys.path))},
    )
    assert result.returncode == 1
    assert "could not be built: there is no C compiler on the PATH" in result.stderr


@needs_compiler
def test_the_sources_compile_without_a_warning(tmp_path: Path) -> None:
    compiler = find_compiler()
    assert compiler is not None
    build(compiler, tmp_path / "strict.so", extra_flags=["-Werror"])


@needs_compiler
def test_python_and_c_agree_on_the_structures(tmp_path: Path) -> None:
    compiler = find_compiler()
    assert compiler is not None
    sizes = [ctypes.sizeof(structure) for structure in (Weight, Layer, Model)]
    offsets = [Layer.window.offset, Layer.q_norm.offset, Model.head.offset, Model.cache.offset]
    expected = ", ".join(map(str, sizes + offsets))
    source = tmp_path / "sizes.c"
    source.write_text(
        '#include "forward.h"\n#include <stddef.h>\n'
        "size_t sizes[] = {sizeof(weight_t), sizeof(layer_t), sizeof(model_t),"
        " offsetof(layer_t, window), offsetof(layer_t, q_norm), offsetof(model_t, head),"
        " offsetof(model_t, cache)};\n"
    )
    library = tmp_path / "sizes.so"
    include = f"-I{building.SOURCE_DIRECTORY}"
    subprocess.run([compiler, "-shared", "-fPIC", include, source, "-o", library], check=True)
    found = (ctypes.c_size_t * 7).in_dll(ctypes.CDLL(str(library)), "sizes")
    assert ", ".join(map(str, found)) == expected


def test_the_native_path_imports_neither_torch_nor_transformers() -> None:
    code = (
        "import sys, appliance.engine.native.runner, appliance.engine.native.kernels.build;"
        "print([name for name in ('torch', 'transformers') if name in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


@pytest.mark.slow
@needs_compiler
def test_a_forward_pass_is_clean_under_the_sanitizers(tmp_path: Path) -> None:
    compiler = find_compiler()
    assert compiler is not None
    build(compiler, tmp_path / "sanitized.so", extra_flags=SANITIZERS)
    asan = subprocess.run(
        [compiler, "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    ).stdout.strip()
    result = subprocess.run(
        [sys.executable, Path(__file__).with_name("sanitized_forward.py"), tmp_path],
        capture_output=True,
        text=True,
        check=False,
        env={
            "LD_PRELOAD": asan,
            "ASAN_OPTIONS": "detect_leaks=0",
            "PYTHONPATH": ":".join(filter(None, sys.path)),
            "PYTHONMALLOC": "malloc",  # so that what Python hands over is guarded too
            "PATH": "/usr/bin:/bin",
        },
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert "clean" in result.stdout
