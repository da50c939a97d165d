"""A pin is one line of one file, and only its value is rewritten."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from appliance.errors import ReleaseError
from appliance_release.pins.overlay_pin import find_pin, find_pins, write_pin

KEY = "flox.dev/environment"


def overlay(directory: Path, name: str, text: str) -> Path:
    folder = directory / "overlays" / name
    folder.mkdir(parents=True)
    (folder / "kustomization.yaml").write_text("resources: []\n")
    path = folder / "pin.yaml"
    path.write_bytes(text.encode())
    return path


def test_pins_of_overlays_and_of_plain_manifests_are_found(tmp_path: Path) -> None:
    overlay(tmp_path, "staging", f'# a comment\n{KEY}: "a/b:2"\n')
    overlay(tmp_path, "production", f"    {KEY}: a/b:1\n")
    (tmp_path / "llama.yaml").write_text(f"x: 1\n{KEY}: 'a/b:3'\n")
    (tmp_path / "other.yaml").write_text("x: 1\n")
    found = [(pin.overlay, pin.line, pin.value) for pin in find_pins(tmp_path)]
    assert found == [("production", 1, "a/b:1"), ("staging", 2, "a/b:2"), ("llama", 2, "a/b:3")]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (f'a: 1\n  {KEY}: "a/b:2"  # why\nz: 1\n', f'a: 1\n  {KEY}: "a/b:9"  # why\nz: 1\n'),
        (f"{KEY}: a/b@2", f'{KEY}: "a/b:9"'),
        (f"{KEY}: 'a/b'\r\nz: 1\r\n", f'{KEY}: "a/b:9"\r\nz: 1\r\n'),
        (f'"{KEY}":   a/b:2\n\n', f'"{KEY}":   "a/b:9"\n\n'),
        (f'{KEY}: ""\n', f'{KEY}: "a/b:9"\n'),
    ],
)
def test_everything_but_the_value_stays(before: str, after: str, tmp_path: Path) -> None:
    path = overlay(tmp_path, "staging", before)
    path.chmod(0o640)
    pin = write_pin(find_pin(tmp_path, "staging"), "a/b:9")
    assert path.read_bytes().decode() == after
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert find_pin(tmp_path, "staging") == pin
    assert sorted(each.name for each in path.parent.iterdir()) == ["kustomization.yaml", "pin.yaml"]


def test_a_commented_line_is_no_pin(tmp_path: Path) -> None:
    overlay(tmp_path, "staging", f"# {KEY}: a/b:1\n{KEY}: a/b:2\n")
    assert find_pin(tmp_path, "staging").value == "a/b:2"


def test_a_file_that_changed_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    path = overlay(tmp_path, "staging", f"{KEY}: a/b:1\n")
    pin = find_pin(tmp_path, "staging")
    path.write_text(f"{KEY}: a/b:5\n")
    with pytest.raises(ReleaseError, match="has changed meanwhile"):
        write_pin(pin, "a/b:2")
    assert path.read_text() == f"{KEY}: a/b:5\n"


def test_an_overlay_without_or_with_two_pins_is_refused(tmp_path: Path) -> None:
    path = overlay(tmp_path, "staging", "x: 1\n")
    with pytest.raises(ReleaseError, match=r"has no flox\.dev/environment line"):
        find_pins(tmp_path)
    path.write_text(f"{KEY}: a/b:1\n{KEY}: a/b:2\n")
    with pytest.raises(ReleaseError, match=r"pin\.yaml:1 and .*pin\.yaml:2\. Keep one"):
        find_pins(tmp_path)


def test_an_unknown_overlay_names_the_known_ones(tmp_path: Path) -> None:
    overlay(tmp_path, "staging", f"{KEY}: a/b:1\n")
    with pytest.raises(ReleaseError, match=r"no overlay 'prod' under .* There are: staging\."):
        find_pin(tmp_path, "prod")


def test_a_directory_without_pins_or_none_at_all_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match="No file under"):
        find_pins(tmp_path)
    with pytest.raises(ReleaseError, match="--directory DIR"):
        find_pins(tmp_path / "nowhere")


def test_a_file_that_is_not_text_is_named(tmp_path: Path) -> None:
    path = overlay(tmp_path, "staging", "")
    path.write_bytes(b"\xff")
    with pytest.raises(ReleaseError, match=r"pin\.yaml cannot be read"):
        find_pins(tmp_path)
