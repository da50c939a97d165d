"""Every answer leaves an entry in an unbroken chain, full disks and torn lines included."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from appliance.access import audit_log
from appliance.access.audit_log import AuditLog, files_of, head_digits, verify
from appliance.errors import AccessError

ANSWER: dict[str, object] = {
    "event": "answer",
    "who": "key:ada",
    "key": "0123456789ab",
    "model": "pebble",
    "fingerprint": "fp_1",
    "route": "/generate",
    "status": 200,
    "request_id": "r",
    "request": "a" * 64,
    "answer": "b" * 64,
}


def write(path: Path, num_entries: int = 3, **options: int) -> AuditLog:
    log = AuditLog(path, version="1", **options)
    for number in range(num_entries):
        log.add({**ANSWER, "request_id": f"r{number}"})
    log.close()
    return log


def entries(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for file in files_of(path) for line in file.read_text().splitlines()]


def test_a_run_is_a_start_its_answers_in_order_and_a_stop(tmp_path: Path) -> None:
    write(tmp_path)
    found = entries(tmp_path)
    assert [each["event"] for each in found] == ["start", "answer", "answer", "answer", "stop"]
    assert [each.get("request_id") for each in found[1:4]] == ["r0", "r1", "r2"]
    assert verify(tmp_path).problems == []


def test_the_next_run_goes_on_with_the_chain(tmp_path: Path) -> None:
    head = write(tmp_path).head
    log = write(tmp_path)
    assert log.head.number == 2 * head.number
    verdict = verify(tmp_path, head.hash)
    assert (verdict.problems, verdict.head) == ([], log.head)


def test_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    write(tmp_path / "audit")
    assert (tmp_path / "audit").stat().st_mode & 0o777 == 0o700
    assert all(file.stat().st_mode & 0o777 == 0o600 for file in files_of(tmp_path / "audit"))


def test_a_long_file_is_followed_by_another_and_the_chain_goes_on(tmp_path: Path) -> None:
    for _ in range(4):
        write(tmp_path, max_file_bytes=600)
    files = files_of(tmp_path)
    assert len(files) > 1
    verdict = verify(tmp_path)
    assert (verdict.problems, verdict.first, verdict.head.number) == ([], 1, 20)


def test_each_day_has_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_log, "timestamp", lambda: "2026-12-01T23:59:59+00:00")
    write(tmp_path)
    monkeypatch.setattr(audit_log, "timestamp", lambda: "2026-12-02T00:00:00+00:00")
    write(tmp_path)
    assert [file.name for file in files_of(tmp_path)] == [
        "audit-000000000001.jsonl",
        "audit-000000000006.jsonl",
    ]
    assert verify(tmp_path).problems == []


def test_old_files_may_go_and_the_check_says_so(tmp_path: Path) -> None:
    for _ in range(4):
        write(tmp_path, max_file_bytes=600)
    oldest, second, *_ = files_of(tmp_path)
    oldest.unlink()
    verdict = verify(tmp_path)
    assert verdict.problems == []
    assert verdict.first == int(second.stem.removeprefix("audit-"))


def change_line(path: Path, change: Callable[[list[str]], object]) -> None:
    lines = path.read_text().splitlines()
    change(lines)
    path.write_text("".join(f"{line}\n" for line in lines))


def edit(lines: list[str]) -> None:
    lines[1] = lines[1].replace("key:ada", "key:eve")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (edit, ":2: this entry was changed after it was written"),
        (lambda lines: lines.pop(1), ":2: this is entry 3: entries were removed"),
        (lambda lines: lines.insert(1, lines[1]), ":3: this is entry 2"),
        (lambda lines: lines.insert(1, "{}"), ":2: this is not an entry"),
        (lambda lines: lines.pop(0), ":1: this is entry 2"),
    ],
    ids=["edit", "removal", "repetition", "garbage", "removal of the first"],
)
def test_every_change_shows(
    change: Callable[[list[str]], object], said: str, tmp_path: Path
) -> None:
    write(tmp_path)
    change_line(files_of(tmp_path)[0], change)
    assert any(said in problem for problem in verify(tmp_path).problems)


def test_a_file_that_is_missing_in_between_shows(tmp_path: Path) -> None:
    for _ in range(4):
        write(tmp_path, max_file_bytes=600)
    files_of(tmp_path)[1].unlink()
    assert any("its name promises another entry" in each for each in verify(tmp_path).problems)


def test_a_cut_off_end_shows_only_to_those_who_kept_the_head(tmp_path: Path) -> None:
    log = write(tmp_path)
    kept = [log.head.hash, (log.head.hash or "")[:13], head_digits(repr(float(log.head.gauge)))]
    assert [verify(tmp_path, head).problems for head in kept] == [[], [], []]
    change_line(files_of(tmp_path)[0], lambda lines: lines.pop())
    assert verify(tmp_path).problems == []
    assert all("the end was cut off" in verify(tmp_path, head).problems[0] for head in kept)


def test_two_servers_do_not_share_a_directory(tmp_path: Path) -> None:
    log = AuditLog(tmp_path, version="1")
    with pytest.raises(AccessError, match="Another server writes to"):
        AuditLog(tmp_path, version="1")
    log.close()
    write(tmp_path)


def test_a_torn_line_is_set_aside_and_told(tmp_path: Path) -> None:
    write(tmp_path)
    path = files_of(tmp_path)[0]
    with path.open("a") as file:
        file.write('{"answer":"a')
    write(tmp_path)
    assert verify(tmp_path).problems == []
    assert entries(tmp_path)[5]["torn_bytes"] == 12
    assert path.with_suffix(".torn").read_text() == '{"answer":"a'


def test_a_start_after_a_forged_end_is_refused(tmp_path: Path) -> None:
    write(tmp_path)
    with files_of(tmp_path)[0].open("a") as file:
        file.write("{}\n")
    with pytest.raises(AccessError, match="is not an entry of an audit log"):
        AuditLog(tmp_path, version="1")


def test_a_full_disk_loses_nothing_that_fits_into_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_full, has_failed = True, threading.Event()
    sync = os.fsync

    def full(descriptor: int) -> None:
        if is_full:
            has_failed.set()
            raise OSError(28, "No space left on device")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    monkeypatch.setattr(audit_log, "MAX_WAITING", 5)
    log = AuditLog(tmp_path, version="1")
    assert has_failed.wait(10)  # the start could not be written, and the thread waits to try again
    for number in range(8):
        log.add({**ANSWER, "request_id": f"r{number}"})
    assert log.num_lost == 3
    is_full = False
    log.close()
    found = entries(tmp_path)
    assert [each["event"] for each in found if each["event"] != "answer"][:2] == ["start", "lost"]
    assert next(each["count"] for each in found if each["event"] == "lost") == 3
    assert verify(tmp_path).problems == []


def test_an_empty_directory_is_an_empty_log(tmp_path: Path) -> None:
    verdict = verify(tmp_path)
    assert (verdict.problems, verdict.head.number, verdict.head.gauge) == ([], 0, 0)
