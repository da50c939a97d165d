"""Whatever is done to the history by other means than the tool shows, but for a cut-off end."""

from __future__ import annotations

import errno
import fcntl
import itertools
import json
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance.errors import ReleaseError
from appliance_release.pins.history import Change, PinHistory

CHANGE = Change(
    by="Ada", action="set", target="staging", before="a/b:1", after="a/b:2", why="é\u2028"
)


def written(path: Path, num_entries: int = 4) -> PinHistory:
    log = PinHistory(path / "pins" / "history.jsonl")
    for number in range(num_entries):
        log.append(replace(CHANGE, after=f"a/b:{number + 2}"))
    return log


def rewrite(log: PinHistory, change: Callable[[list[str]], object]) -> list[str]:
    lines = log.path.read_text().split("\n")[:-1]
    change(lines)
    log.path.write_text("".join(f"{line}\n" for line in lines))
    return log.inspect()[1]


def test_an_untouched_history_holds(tmp_path: Path) -> None:
    log = written(tmp_path)
    entries, problems = log.inspect()
    assert problems == []
    assert [entry.number for entry in entries] == [1, 2, 3, 4]
    assert entries[0].previous is None
    assert all(b.previous == a.hash for a, b in itertools.pairwise(entries))
    assert entries[0].why == CHANGE.why


def test_no_history_is_an_empty_one(tmp_path: Path) -> None:
    assert PinHistory(tmp_path / "none").entries() == []


def swap(lines: list[str]) -> None:
    lines[1], lines[2] = lines[2], lines[1]


def forge(lines: list[str]) -> None:
    """As somebody would who changes who did it, and leaves the hash."""
    lines[1] = lines[1].replace('"by":"Ada"', '"by":"Eve"')


def respace(lines: list[str]) -> None:
    lines[1] = json.dumps(json.loads(lines[1]))


def duplicate_key(lines: list[str]) -> None:
    """Readers differ in which of two they show."""
    lines[1] = lines[1].replace('{"action"', '{"action":"promote","action"', 1)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (forge, r":2: this entry was changed after it was written"),
        (lambda lines: lines.pop(1), r":2: this is entry 3: entries were removed"),
        (lambda lines: lines.pop(0), r":1: this is entry 2: entries were removed"),
        (swap, r":2: this is entry 3"),
        (lambda lines: lines.insert(1, lines[1]), r":3: this is entry 2"),
        (lambda lines: lines.insert(1, "{}"), r":2: this is not an entry"),
        (lambda lines: lines.insert(1, "x"), r":2: this is not an entry"),
        (lambda lines: lines.insert(1, ""), r":2: this is not an entry"),
        (respace, r":2: this is not an entry"),
        (duplicate_key, r":2: this is not an entry"),
    ],
    ids=["edit", "removal", "removal of the first", "order", "repetition", "empty entry", "garbage",
         "empty line", "spaces", "two of a key"],
)  # fmt: skip
def test_every_change_of_the_history_shows(
    change: Callable[[list[str]], object], said: str, tmp_path: Path
) -> None:
    log = written(tmp_path)
    problems = rewrite(log, change)
    assert any(said in problem for problem in problems), problems
    with pytest.raises(ReleaseError, match="Nothing is added to a history that was altered"):
        log.append(CHANGE)


def test_an_entry_that_was_forged_with_its_hash_no_longer_fits_the_next(tmp_path: Path) -> None:
    def forge_well(lines: list[str]) -> None:
        other = PinHistory(tmp_path / "other.jsonl")
        other.append(replace(CHANGE, after="a/b:2"))
        other.append(replace(CHANGE, by="Eve"))
        lines[:2] = other.path.read_text().split("\n")[:-1]

    (problem,) = rewrite(written(tmp_path), forge_well)
    assert ":3: the entry before is not the one that this one followed" in problem


def test_a_cut_off_end_shows_only_to_those_who_kept_the_head(tmp_path: Path) -> None:
    log = written(tmp_path)
    head = log.entries()[-1].hash
    assert log.inspect(head)[1] == []
    assert rewrite(log, lambda lines: lines.pop()) == []
    assert "no entry has the hash" in log.inspect(head)[1][0]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(data=st.data())
def test_no_single_character_can_change(data: st.DataObject, tmp_path: Path) -> None:
    log = PinHistory(tmp_path / "history.jsonl")
    if not log.path.exists():
        log = PinHistory(tmp_path / "history.jsonl")
        for _ in range(3):
            log.append(CHANGE)
    text = log.path.read_text()
    index = data.draw(st.integers(0, len(text) - 2))
    character = data.draw(st.characters(codec="ascii").filter(lambda each: each != text[index]))
    log.path.write_text(text[:index] + character + text[index + 1 :])
    try:
        assert log.inspect()[1]
    finally:
        log.path.write_text(text)


def test_entries_of_many_writers_form_one_chain(tmp_path: Path) -> None:
    log = PinHistory(tmp_path / "history.jsonl")
    writers = [threading.Thread(target=log.append, args=(CHANGE,)) for _ in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(30)
    assert len(log.entries()) == 8


def test_a_writer_waits_for_the_other(tmp_path: Path) -> None:
    log = written(tmp_path)
    writer = threading.Thread(target=log.append, args=(CHANGE,))
    with log.path.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        writer.start()
        writer.join(0.3)
        assert writer.is_alive()
    writer.join(30)
    assert len(log.entries()) == 5


def test_an_entry_has_its_own_line_after_one_that_an_editor_left_open(tmp_path: Path) -> None:
    log = written(tmp_path, 1)
    log.path.write_text(log.path.read_text().removesuffix("\n"))
    log.append(CHANGE)
    assert len(log.entries()) == 2


def test_a_disk_that_is_full_leaves_no_part_of_an_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    log = written(tmp_path)
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ReleaseError, match="No space left on device"):
        log.append(CHANGE)
    assert len(log.entries()) == 4


@pytest.mark.parametrize(
    ("name", "value"), [("action", None), ("number", "1"), ("hash", ["a"]), ("by", 1)]
)
def test_an_entry_of_other_kinds_of_values_is_none(
    name: str, value: object, tmp_path: Path
) -> None:
    def spoil(lines: list[str]) -> None:
        facts = json.loads(lines[0]) | {name: value}
        lines[0] = json.dumps(facts, sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    assert ":1: this is not an entry" in rewrite(written(tmp_path), spoil)[0]


def test_a_history_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "pins").write_text("a file")
    with pytest.raises(ReleaseError, match=r"history\.jsonl cannot be written"):
        PinHistory(tmp_path / "pins" / "history.jsonl").append(CHANGE)
