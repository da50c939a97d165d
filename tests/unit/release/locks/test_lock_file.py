"""Locks on disk: a pinned file a line, written whole."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from appliance.errors import ReleaseError
from appliance_release.locks.lock_file import render, write_whole


def test_an_innermost_object_has_a_line() -> None:
    files = {"a": {"sha256": "ü", "size": 1}, "b": {}}
    assert render({"lock": 1, "source": None, "files": files, "x": []}).splitlines() == [
        "{",
        '  "lock": 1,',
        '  "source": null,',
        '  "files": {',
        '    "a": {"sha256": "ü", "size": 1},',
        '    "b": {}',
        "  },",
        '  "x": []',
        "}",
    ]


def test_what_is_rendered_is_the_same_json() -> None:
    value = {"a": [{"b": 1, "c": [1, 2]}, {"b": 2, "c": []}], "d": {"e": {"f": {"g": True}}}}
    assert json.loads(render(value)) == value


def test_a_flat_object_has_a_line_a_key() -> None:
    assert render({"a": 1, "b": 2}) == '{\n  "a": 1,\n  "b": 2\n}\n'


def test_a_file_is_replaced_whole_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.json"
    write_whole(path, "one")
    write_whole(path, "two")
    assert path.read_text() == "two"
    assert list(path.parent.iterdir()) == [path]


def test_a_link_that_waits_in_the_folder_is_not_followed(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("theirs")
    (tmp_path / f".a.json.{os.getpid()}").symlink_to(other)
    write_whole(tmp_path / "a.json", "ours")
    assert (tmp_path / "a.json").read_text() == "ours"
    assert other.read_text() == "theirs"


def test_the_rights_of_a_file_stay(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("")
    path.chmod(0o640)
    write_whole(path, "text")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ReleaseError, match="cannot be written"):
        write_whole(tmp_path / "file" / "a.json", "text")
