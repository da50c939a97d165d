"""Who may import whom, what nobody may call, and the sentence that opens every module."""

from __future__ import annotations

import ast
import functools
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

SERVER = Path(__file__).parents[2] / "server"
MODULES = {
    path.relative_to(SERVER).as_posix(): path
    for package in ("appliance", "appliance_release")
    for path in sorted((SERVER / package).rglob("*.py"))
}


class Rule(NamedTuple):
    """What the files of a room may import: rooms (dotted, with all below), and libraries."""

    rooms: str = ""
    libraries: str = ""


# The rule of a file is that of the innermost room which has one. A room may import itself.
# `serve` constructs, so it may import all of `appliance`; no room of it imports the release.
RULES = {
    "errors": Rule(),
    "logs": Rule(),
    "machine": Rule(),
    "histogram": Rule(libraries="prometheus_client"),
    "metrics": Rule("histogram", "prometheus_client"),
    "settings": Rule("errors"),
    "text": Rule("errors", "jinja2 llguidance numpy pydantic tokenizers"),
    "engine": Rule("errors", "numpy"),
    "engine.torch": Rule("errors engine", "numpy torch"),
    "engine.runners": Rule("errors engine", "huggingface_hub numpy torch transformers"),
    "completion": Rule("errors engine text", "numpy pydantic"),
    "models": Rule("errors machine settings engine text completion", "numpy torch"),
    "access": Rule("errors", "jwt"),
    "api.http": Rule(
        "errors logs metrics access completion api.schema",
        "fastapi pydantic pydantic_core",
    ),
    "api.schema": Rule("errors completion api.http", "pydantic pydantic_core"),
    "api.native": Rule("errors completion api.http api.schema", "pydantic"),
    "api.openai": Rule(
        "errors completion api.http api.schema",
        "pydantic pydantic_core",
    ),
    "api.ops": Rule("errors metrics access completion api.http api.schema", "pydantic"),
    "api.web": Rule("errors api.http api.schema"),
    "api": Rule(),
    "serve": Rule(
        "errors logs machine metrics settings text engine completion models access api console",
        "uvicorn",
    ),
    "console": Rule(),
    "cli": Rule("errors settings console models serve access"),
    "__main__": Rule("cli"),
    # Rooms of `appliance_release`.
    "release": Rule("errors cli"),
    "release.locks": Rule("errors console models", "packaging"),
    "release.flox": Rule("errors settings release.locks"),
    "release.pins": Rule("errors models access release.locks release.programs"),
    "release.manifests": Rule(
        "errors cli metrics models settings release.pins release.programs", "yaml"
    ),
    "release.rollout": Rule("errors console release.manifests release.pins release.programs"),
    "release.sbom": Rule("errors models release.locks"),
    "release.bundle": Rule("errors console models release.locks release.sbom"),
    "release.cli": Rule("errors settings console models cli release"),
}
SUBPROCESS_FILES = {
    "appliance/engine/native/kernels/build.py",  # the C compiler, on our own sources
    "appliance/text/confined.py",  # strangers' templates and schemas, in a process of their own
    "appliance_release/locks/nix_store.py",  # Nix's own commands
    "appliance_release/locks/wheel_lock.py",  # uv, which asks the registry
    "appliance_release/rollout/kubectl.py",  # a forwarded port, while one server is asked
    "appliance_release/programs.py",  # kubectl and git, with arguments of our own
    "appliance_release/bundle/signature.py",  # ssh-keygen
}
# Whoever calls machine code by address can break the process.
CTYPES_ROOM = "appliance/engine/native/"
ENVIRONMENT_FILES = {
    "appliance/settings.py",
    "appliance/cli/main.py",  # hands the environment on to the command
    "appliance/machine.py",  # sets OMP_WAIT_POLICY before torch is imported
    "appliance/engine/runners/transformers.py",  # sets HF_HUB_OFFLINE before it imports the library
}

CODE_LOADERS = {"cloudpickle", "dill", "joblib", "marshal", "pickle", "runpy", "shelve"}
CODE_RUNNERS = {"eval", "exec", "compile", "__import__"}
# What is read with yaml.SafeLoader can only be data: yaml_document.py uses nothing else.
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


def room_of(name: str) -> str:
    """The innermost room with a rule, of a module named with slashes."""
    name = name.replace("appliance_release/", "release/").removeprefix("appliance/")
    parts = name.removesuffix(".py").split("/")
    rooms = [".".join(parts[:depth]) for depth in range(len(parts), 0, -1)]
    return next((room for room in rooms if room in RULES), "")


def package_of(room: str) -> str:
    """The dotted package of a room."""
    return f"appliance_{room}" if is_within(room, "release") else f"appliance.{room}"


def own_imports(name: str) -> set[str]:
    """What a file imports of ours: modules alone, not the names inside of them."""
    found = {each for each in imports(name) if each.split(".")[0] in PACKAGES}
    return {each for each in found - PACKAGES if is_module(each)}


PACKAGES = {"appliance", "appliance_release"}


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


def is_within(module: str, room: str) -> bool:
    return module == room or module.startswith(f"{room}.")


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_only_what_its_room_may(name: str) -> None:
    if name == "appliance/__init__.py":
        assert not imports(name)
        return
    room = room_of(name)
    allowed = [package_of(each) for each in (room, *RULES[room].rooms.split())]
    strangers = {
        each for each in own_imports(name) if not any(is_within(each, room) for room in allowed)
    }
    assert not strangers


@pytest.mark.parametrize("name", MODULES)
def test_a_library_is_used_only_where_it_belongs(name: str) -> None:
    libraries = {each.split(".")[0] for each in imports(name)} - PACKAGES
    libraries -= set(sys.stdlib_module_names)
    assert libraries <= set(RULES[room_of(name)].libraries.split() if room_of(name) else ())


def test_every_room_has_a_rule_and_every_rule_a_room() -> None:
    rooms = {room_of(name) for name in MODULES if name != "appliance/__init__.py"}
    assert rooms == set(RULES)


def test_dangerous_libraries_are_confined_to_files() -> None:
    assert importers("subprocess") <= SUBPROCESS_FILES
    assert all(name.startswith(CTYPES_ROOM) for name in importers("ctypes"))


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
