"""No manifest, whatever is put where, can make the check itself fail."""

from __future__ import annotations

import copy
import tomllib
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from appliance.release.flox_lines import KeyPath, locate_keys
from appliance.release.flox_rules import check_rules
from appliance.release.flox_schema import MANIFEST
from appliance.release.flox_types import NEWEST, VERSIONS

REPOSITORY = Path(__file__).parents[3]
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
