"""Requirements files: pinned lines in, everything else refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.errors import ReleaseError
from appliance_release.locks.requirements_file import (
    Requirement,
    read_requirements,
    read_wheel_names,
)

HASH = "a" * 64


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "some.txt"
    path.write_text(text)
    return path


def test_a_requirement_has_a_version_a_marker_and_every_hash(tmp_path: Path) -> None:
    text = (
        "# a comment\n"
        "Some_Thing==1.2+cpu ; sys_platform == 'linux' \\\n"
        f"    --hash=sha256:{HASH} \\\n    --hash=sha256:{'b' * 64}\n    # via another\n"
    )
    expected = Requirement(
        "some-thing", "1.2+cpu", "sys_platform == 'linux'", frozenset({HASH, "b" * 64})
    )
    assert read_requirements(write(tmp_path, text)) == [expected]


@pytest.mark.parametrize(
    "line", ["thing>=1", "thing==1", f"thing --hash=sha256:{HASH}", "-r other.txt"]
)
def test_a_line_that_pins_nothing_is_refused(line: str, tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match=r"some\.txt: .* is not pinned .* `make lock`"):
        read_requirements(write(tmp_path, line))


def test_a_missing_file_is_named_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match="at the top of a checkout"):
        read_requirements(tmp_path / "absent.txt")


def test_a_marker_decides_by_machine() -> None:
    requirement = Requirement("thing", "1", "platform_machine == 'x86_64'", frozenset())
    assert requirement.holds_on("x86_64", (3, 11))
    assert not requirement.holds_on("aarch64", (3, 11))


def test_wheel_names_stand_in_comments_like_the_output_of_sha256sum(tmp_path: Path) -> None:
    text = f"# files:\n#   {HASH}  thing-1-py3-none-any.whl\nthing==1 \\\n  --hash=sha256:{HASH}\n"
    assert read_wheel_names(write(tmp_path, text)) == {"thing-1-py3-none-any.whl": HASH}
