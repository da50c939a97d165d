"""Who may import whom, what nobody may call, and the sentence that opens every module."""

from __future__ import annotations

import ast
import functools
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
ROOT = REPOSITORY / "server" / "appliance"
MODULES = {path.relative_to(ROOT).as_posix(): path for path in sorted(ROOT.rglob("*.py"))}

# What each part of the house may import of the others; itself and the version always.
# api → completion → {text, engine}; text and engine do not know each other.
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "logs": set(),
    "metrics": set(),
    "machine": set(),
    "unread_answers": set(),
    "settings": {"errors"},
    "text": {"errors"},
    "engine": {"errors"},
    "completion": {"errors", "text", "engine"},
    "file_hashes": {"errors"},
    "model_store": {
        "errors",
        "file_hashes",
        "engine.model.config",
        "engine.model.quantized",
        "engine.model.tensor_file",
    },
    "identity": {"file_hashes", "model_store"},
    "api": {"errors", "logs", "metrics", "identity", "completion"},
    "lifecycle": {"errors", "unread_answers", "api.protocol", "api.state"},
    "console": set(),
    "release": {"console", "errors", "file_hashes", "metrics", "model_store", "settings"},
    "quantizer": {
        "engine",
        "errors",
        "file_hashes",
        "identity",
        "machine",
        "model_store",
        "placement",
        "settings",
        "text",
    },
    "cli": {
        "console",
        "errors",
        "settings",
        "file_hashes",
        "model_store",
        "identity",
        "release",
        "quantizer",
        "wiring",
    },
    "__main__": {"cli"},
}
CONSTRUCT = {"wiring", "placement"}  # concrete classes, of any part

# Which part of the house may import each library.
LIBRARIES: dict[str, set[str]] = {
    "fastapi": {"api", "lifecycle"},
    "fastapi_offline": {"api"},
    "huggingface_hub": {"engine"},
    "jinja2": {"text"},
    "llguidance": {"text"},
    "numpy": {"completion", "engine", "text"},
    "packaging": {"release"},
    "prometheus_client": {"metrics"},
    "pydantic": {"api", "completion", "text"},
    "pydantic_core": {"api"},
    "starlette": {"api"},
    "tokenizers": {"text"},
    "torch": {"engine", "placement"},
    "transformers": {"engine"},
    "yaml": {"release"},
    "uvicorn": {"api", "lifecycle"},
}
# Of the engine, the scheduling half must stay free of torch, and one file alone knows transformers.
TORCH_FILES = {
    "engine/torch/cuda.py",
    "engine/torch/attention.py",
    "engine/torch/fixed_attention.py",
    "engine/torch/layers.py",
    "engine/torch/linear.py",
    "engine/torch/llama.py",
    "engine/torch/weights.py",
    "engine/torch/tiled_forward.py",
    "engine/torch/runner.py",
    "engine/runners/transformers.py",
    "models/plan.py",  # inside a function: whether there is a CUDA device
}
TRANSFORMERS_FILES = {"engine/runners/transformers.py"}
SUBPROCESS_FILES = {
    "engine/native/kernels/build.py",  # the C compiler, on our own sources
    "release/nix_store.py",  # Nix's own commands
    "release/kubectl.py",  # a forwarded port, while one server is asked
    "release/programs.py",  # kubectl and git, with arguments of our own
    "release/signature.py",  # ssh-keygen
    "release/wheel_lock.py",  # uv, which asks the registry
    "text/confined.py",  # strangers' templates and schemas, in a process of their own
}
# Whoever calls machine code by address can break the process.
CTYPES_FILES = {
    "engine/native/kernels/library.py",
    "engine/native/runner.py",
    "engine/native/packing.py",
}
ENVIRONMENT_FILES = {
    "settings.py",
    "cli/main.py",  # hands the environment on to the command
    "machine.py",  # sets OMP_WAIT_POLICY before torch is imported
    "engine/runners/transformers.py",  # sets HF_HUB_OFFLINE before it imports the library
}

CODE_LOADERS = {"cloudpickle", "dill", "joblib", "marshal", "pickle", "runpy", "shelve"}
CODE_RUNNERS = {"eval", "exec", "compile", "__import__"}
# What is read with yaml.SafeLoader can only be data; release/yaml_document.py uses nothing else.
YAML_LOADS = {f"{kind}load{all_}" for kind in ("", "full_", "unsafe_") for all_ in ("", "_all")}
UNSAFE_LOADS = {
    ("torch", "load"),
    ("numpy", "load"),
    ("np", "load"),
    *(("yaml", name) for name in YAML_LOADS),
}


@functools.cache
def parse(name: str) -> ast.Module:
    return ast.parse(MODULES[name].read_text(encoding="utf-8"))


@functools.cache
def imports(name: str) -> frozenset[str]:
    """Every module that a file imports, wherever in the file, by its dotted name."""
    return frozenset(_imports(name))


def _imports(name: str) -> Iterator[str]:
    for node in ast.walk(parse(name)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None, f"{name} has a relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def part_of(name: str) -> str:
    return name.split("/", maxsplit=1)[0].removesuffix(".py")


def own_imports(name: str) -> set[str]:
    """What a file imports of ours, without the package's name and names inside of modules."""
    found = {each.removeprefix("appliance.") for each in imports(name) if each != "appliance"}
    return {each for each in found if is_module(each)}


def is_module(dotted: str) -> bool:
    path = dotted.replace(".", "/")
    return f"{path}.py" in MODULES or f"{path}/__init__.py" in MODULES


def importers(library: str) -> set[str]:
    return {name for name in MODULES if library in {each.split(".")[0] for each in imports(name)}}


def dotted(node: ast.expr) -> str:
    """`a.b` of an attribute of a name, else nothing."""
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return f"{node.value.id}.{node.attr}"
    return ""


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_only_what_its_part_of_the_house_may(name: str) -> None:
    part = part_of(name)
    if part in {"__init__", *CONSTRUCT}:
        return
    allowed = ALLOWED[part] | {part}
    strangers = {
        each
        for each in own_imports(name)
        if not any(each == other or each.startswith(f"{other}.") for other in allowed)
    }
    assert not strangers


def test_every_part_of_the_house_is_in_the_rule() -> None:
    parts = {part_of(name) for name in MODULES} - {"__init__", *CONSTRUCT}
    assert parts <= ALLOWED.keys()


def test_the_package_itself_imports_nothing() -> None:
    assert not imports("__init__.py")


@pytest.mark.parametrize("name", MODULES)
def test_a_library_is_used_only_where_it_belongs(name: str) -> None:
    libraries = {each.split(".")[0] for each in imports(name)} - {"appliance"}
    for library in libraries - set(sys.stdlib_module_names):
        assert part_of(name) in LIBRARIES.get(library, set()), library


@pytest.mark.parametrize(
    ("library", "files"),
    [
        ("torch", TORCH_FILES),
        ("transformers", TRANSFORMERS_FILES),
        ("subprocess", SUBPROCESS_FILES),
        ("ctypes", CTYPES_FILES),
    ],
)
def test_heavy_or_dangerous_libraries_are_confined_to_files(library: str, files: set[str]) -> None:
    assert importers(library) <= files


def test_only_settings_and_the_named_files_touch_the_environment() -> None:
    def touches(name: str) -> bool:
        names = {dotted(node) for node in ast.walk(parse(name)) if isinstance(node, ast.Attribute)}
        reads = {"os.environ", "os.environb", "os.getenv", "os.putenv", "os.unsetenv"}
        return bool(names & reads) or bool({"os.environ", "os.getenv"} & imports(name))

    assert {name for name in MODULES if touches(name)} <= ENVIRONMENT_FILES


@pytest.mark.parametrize("name", MODULES)
def test_nothing_can_turn_data_into_code(name: str) -> None:
    assert not CODE_LOADERS & {each.split(".")[0] for each in imports(name)}
    for node in ast.walk(parse(name)):
        if not isinstance(node, ast.Call):
            continue
        called = node.func
        assert not (isinstance(called, ast.Name) and called.id in CODE_RUNNERS), node.lineno
        assert tuple(dotted(called).split(".")) not in UNSAFE_LOADS, node.lineno
        for keyword in node.keywords:
            is_off = isinstance(keyword.value, ast.Constant) and keyword.value.value is False
            assert keyword.arg not in {"trust_remote_code", "allow_pickle"} or is_off, node.lineno
            assert keyword.arg != "shell" or is_off, node.lineno


def first_line(name: str) -> str:
    return (ast.get_docstring(parse(name)) or "").split("\n", maxsplit=1)[0]


@pytest.mark.parametrize("name", MODULES)
def test_every_module_opens_with_one_sentence(name: str) -> None:
    sentence = first_line(name)
    assert sentence.endswith("."), "the docstring's first line must be a whole sentence"
    assert not re.search(r"[.!?] [A-Z]", sentence), "one sentence, not two"
