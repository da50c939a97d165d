"""Each of many ways to break a manifest is refused, at its line and in words that help."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance_release.flox.check import check_environment
from tests.unit.release.flox.flox_manifests import BUILD, SERVICES, Mutation, errors, lay_out
from tests.unit.release.flox.flox_mutations import OF_ALL


@pytest.mark.parametrize("manifest", [BUILD, SERVICES], ids=["build", "services"])
def test_environments_of_other_kinds_pass(tmp_path: Path, manifest: str) -> None:
    assert check_environment(lay_out(tmp_path, manifest)) == []


@pytest.mark.parametrize(("source", "mutation"), OF_ALL)
def test_a_broken_manifest_is_refused_at_its_line(
    tmp_path: Path, source: str, mutation: Mutation
) -> None:
    for old, new in mutation.replacements.items():
        assert source.count(old) == 1, f"{old!r} must stand in the manifest once"
        source = source.replace(old, new)
    file = lay_out(tmp_path, source)
    found = errors(check_environment(file))
    assert len(found) == 1, [str(each) for each in found]
    expected_line = source[: source.index(mutation.line_with)].count("\n") + 1
    assert (found[0].file, found[0].line) == (file, expected_line)
    for words in mutation.says:
        assert words in found[0].message
