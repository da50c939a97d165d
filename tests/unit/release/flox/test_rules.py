"""What is legal but seldom meant is a warning; and no manifest can make the check itself fail."""

from __future__ import annotations

import copy
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance_release.flox.check import check_environment
from appliance_release.flox.lines import KeyPath, locate_keys
from appliance_release.flox.rules import check_rules
from appliance_release.flox.schema import MANIFEST
from appliance_release.flox.types import NEWEST, VERSIONS
from tests.unit.release.flox.flox_manifests import (
    AUTO_START,
    CUDA,
    HOOK,
    PACKAGE,
    REPOSITORY,
    RUNTIME,
    SCHEMA,
    SERVICE,
    VAR,
    Mutation,
    broken,
    lay_out,
)

EVERY_KEY = """
schema-version = "1.19.0"
description = "all there is"
pkg-groups.old.stability = "stable"
minimum-cli-version = { version = "1.14.1", reason = "order" }
install.a = { pkg-path = "o/a", version = "1", systems = ["x86_64-linux"], outputs = ["out"] }
install.b.flake = "github:o/b"
vars = { A = "$B", B = "1" }
hook = { on-activate = "true", on-deactivate = "true" }
profile.deactivate.bash = "true"
services.auto-start = false
services.a = { command = "a", vars.C = "1", is-daemon = true, shutdown.command = "b" }
services.b = { command = "b", depends-on.a.condition = "process_started", shutdown.signal = 2 }
include.environments = [{ dir = "." }, { remote = "o/e", generation = 1 }]
build.a = { command = "a", runtime-packages = ["a"], sandbox = "off", version.file = "V" }
options.systems = ["x86_64-linux"]
options.stability = "stable"
options.allow.licenses = ["MIT"]
options.activate = { mode = "run", upgrade-notifications = false }
containerize.config = { cmd = ["a"], labels.a = "b" }
plugins.a.b = "c"
"""
PATHS = sorted(locate_keys(EVERY_KEY), key=str)

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)


def with_value(manifest: dict[str, Any], path: KeyPath, value: object) -> dict[str, Any]:
    changed: Any = copy.deepcopy(manifest)
    parent = changed
    for part in path[:-1]:
        parent = parent[part]
    parent[path[-1]] = value
    return dict(changed)


def test_the_manifest_under_test_has_nothing_wrong() -> None:
    manifest = tomllib.loads(EVERY_KEY)
    assert not list(MANIFEST.check(manifest, (), NEWEST))
    assert {each.severity for each in check_rules(manifest, None)} <= {"warning"}


@given(st.sampled_from(PATHS), ANYTHING, st.sampled_from(VERSIONS))
def test_any_value_at_any_place_gives_complaints_and_no_failure(
    path: KeyPath, value: object, version: str
) -> None:
    manifest = with_value(tomllib.loads(EVERY_KEY), path, value)
    complaints = [*MANIFEST.check(manifest, (), version), *check_rules(manifest, REPOSITORY)]
    assert all(each.message.endswith((".", ",")) for each in complaints)


WARNED = {
    "a schema that shuts out older ones for nothing": broken(
        SCHEMA, 'schema-version = "1.19.0"', "Flox before 1.19.0", "needs more than 1.12.0"
    ),
    "PORT as a plain variable": broken(VAR, 'PORT = "8000"', '"${PORT:-8000}"'),
    "a setting as a plain variable": broken(
        VAR, 'APPLIANCE_THREADS = "2"', "replaces what the caller or the pod has set"
    ),
    "MODEL_PATH of the service": broken(
        SERVICE, f'{SERVICE}\nvars.MODEL_PATH = "/m"', "services.llama.vars.MODEL_PATH", at="vars.M"
    ),
    "auto-start": broken(AUTO_START, "auto-start = true", "two servers would want one port"),
    "a store path": broken(
        PACKAGE, 'llama-model.store-path = "/nix/store/x"', "Publish the package"
    ),
    "a hook that stops on errors": broken(HOOK, f"set -eu\n{HOOK}", "`set -eu`", at="set -eu"),
    "a variable of another": broken(
        VAR, f'{VAR}\nLLAMA_HOME = "$LLAMA_MODEL/x"', "before 1.14.1", at="LLAMA_HOME"
    ),
}
SILENT = {
    "PORT that the caller may set": {VAR: 'PORT = "${PORT:-8000}"'},
    "exit in a subshell": {HOOK: f"(exit 1)\n{HOOK}"},
    "exit in a string": {HOOK: f'echo "; exit"\n{HOOK}'},
    "exit in a comment": {HOOK: f"# exit\n{HOOK}"},
    "exec that only redirects": {HOOK: f"exec 3>&1\n{HOOK}"},
    "a path that ends in exit": {HOOK: f"on_exit=1\n{HOOK}"},
    "a variable of another, and the CLI that orders them": {
        SCHEMA: f'{SCHEMA}\nminimum-cli-version = "1.14.1"',
        VAR: f'{VAR}\nLLAMA_HOME = "$LLAMA_MODEL/x"',
    },
    "a package of all outputs": {PACKAGE: f'{PACKAGE}\nllama-model.outputs = ["out", "doc"]'},
}


@pytest.mark.parametrize("mutation", WARNED.values(), ids=WARNED)
def test_what_is_seldom_meant_is_a_warning_at_its_line(tmp_path: Path, mutation: Mutation) -> None:
    source = RUNTIME.read_text(encoding="utf-8")
    for old, new in mutation.replacements.items():
        source = source.replace(old, new)
    (found,) = check_environment(lay_out(tmp_path, source))
    assert found.severity == "warning"
    assert found.line == source[: source.index(mutation.line_with)].count("\n") + 1
    for words in mutation.says:
        assert words in found.message


@pytest.mark.parametrize("replacements", SILENT.values(), ids=SILENT)
def test_what_is_legal_and_meant_passes_in_silence(
    tmp_path: Path, replacements: dict[str, str]
) -> None:
    source = RUNTIME.read_text(encoding="utf-8")
    for old, new in replacements.items():
        assert old in source
        source = source.replace(old, new)
    assert check_environment(lay_out(tmp_path, source)) == []


def test_an_include_without_a_generation_is_a_warning(tmp_path: Path) -> None:
    source = CUDA.read_text(encoding="utf-8").replace(", generation = 1", "")
    (found,) = check_environment(lay_out(tmp_path, source))
    assert (found.severity, found.key) == ("warning", "include.environments[0].remote")
    assert "generation = N" in found.message
