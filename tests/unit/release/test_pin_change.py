"""Rolling forward, promoting and rolling back, each told to the history."""

from __future__ import annotations

import fcntl
import os
import threading
from pathlib import Path

import pytest

from appliance.errors import ReleaseError
from appliance_release.pins.pin import find_pin, write_pin
from appliance_release.pins.pin_change import PinDesk
from appliance_release.pins.pin_record import PinRecord, read_record
from appliance_release.pins.reference import parse_reference

ENVIRONMENT = "acme/llama-runtime"


@pytest.fixture
def desk(tmp_path: Path) -> PinDesk:
    for overlay in ("staging", "production"):
        folder = tmp_path / "overlays" / overlay
        folder.mkdir(parents=True)
        (folder / "kustomization.yaml").write_text("resources: []\n")
        (folder / "pin.yaml").write_text(f'flox.dev/environment: "{ENVIRONMENT}:1"\n')
    return PinDesk(directory=tmp_path, by="Ada", why="because")


def runs(desk: PinDesk, overlay: str) -> str:
    return find_pin(desk.directory, overlay).value.removeprefix(ENVIRONMENT + ":")


def history(desk: PinDesk) -> list[tuple[str, str, str | None, str]]:
    return [(each.action, each.target, each.before, each.after) for each in desk.log.entries()]


def test_a_change_is_written_and_told(desk: PinDesk) -> None:
    moved = desk.set("staging", "2")
    assert runs(desk, "staging") == "2"
    assert runs(desk, "production") == "1"
    assert (moved.before.value, moved.after.value) == (f"{ENVIRONMENT}:1", f"{ENVIRONMENT}:2")
    (entry,) = desk.log.entries()
    assert (entry.by, entry.action, entry.why) == ("Ada", "set", "because")
    assert (entry.target, entry.before, entry.after) == (
        "staging",
        f"{ENVIRONMENT}:1",
        f"{ENVIRONMENT}:2",
    )


def test_another_environment_can_be_pinned(desk: PinDesk) -> None:
    desk.set("staging", "acme/llama-runtime-cuda:7")
    assert find_pin(desk.directory, "staging").value == "acme/llama-runtime-cuda:7"
    desk.set("staging", "8")
    assert find_pin(desk.directory, "staging").value == "acme/llama-runtime-cuda:8"


def test_what_is_pinned_already_is_no_change(desk: PinDesk) -> None:
    desk.set("staging", "1")
    assert history(desk) == []


def test_a_move_that_the_history_missed_is_told_when_it_is_asked_for_again(desk: PinDesk) -> None:
    """A crash between the pin and its entry leaves it so, and so does an editor."""
    desk.set("staging", "2")
    write_pin(find_pin(desk.directory, "staging"), f"{ENVIRONMENT}:3")
    assert desk.changed_by_hand(desk.log.entries())

    moved = desk.set("staging", "3")
    assert moved.untold == f"{ENVIRONMENT}:2"
    assert history(desk)[1:] == [("set", "staging", f"{ENVIRONMENT}:2", f"{ENVIRONMENT}:3")]
    assert desk.changed_by_hand(desk.log.entries()) == []

    assert desk.set("staging", "3").untold is None
    assert len(history(desk)) == 2


def test_an_unpinned_overlay_can_be_pinned(desk: PinDesk) -> None:
    path = desk.directory / "overlays" / "staging" / "pin.yaml"
    path.write_text(f"flox.dev/environment: {ENVIRONMENT}\n")
    desk.set("staging", "2")
    assert runs(desk, "staging") == "2"
    assert history(desk)[0][2] == ENVIRONMENT


@pytest.mark.parametrize("wanted", ["0", "latest", "a/b", "a/b@2", "-1", "٣"])
def test_only_a_generation_can_be_pinned(wanted: str, desk: PinDesk) -> None:
    with pytest.raises(ReleaseError):
        desk.set("staging", wanted)
    assert runs(desk, "staging") == "1"
    assert history(desk) == []


def test_a_promotion_takes_the_whole_reference(desk: PinDesk) -> None:
    desk.set("staging", "acme/other:4")
    desk.promote("staging", "production")
    assert find_pin(desk.directory, "production").value == "acme/other:4"
    assert history(desk)[-1][0] == "promote"


def test_an_unpinned_overlay_cannot_be_promoted(desk: PinDesk) -> None:
    path = desk.directory / "overlays" / "staging" / "pin.yaml"
    path.write_text(f"flox.dev/environment: {ENVIRONMENT}\n")
    with pytest.raises(ReleaseError, match=r"pin\.yaml:1: .* names no generation"):
        desk.promote("staging", "production")


def test_a_rollback_goes_to_what_was_live_and_names_the_lower_one(desk: PinDesk) -> None:
    for generation in ("2", "5"):
        desk.set("production", generation)
    moved = desk.roll_back("production")
    assert runs(desk, "production") == "2"
    assert str(moved.lower) == f"{ENVIRONMENT}:4"


def test_the_lower_one_is_not_named_where_it_is_the_previous(desk: PinDesk) -> None:
    desk.set("production", "2")
    assert desk.roll_back("production").lower is None


def test_a_second_rollback_goes_forward_again(desk: PinDesk) -> None:
    desk.set("production", "2")
    for expected in ("1", "2", "1"):
        desk.roll_back("production")
        assert runs(desk, "production") == expected


def test_a_rollback_can_go_lower_or_to_a_number(desk: PinDesk) -> None:
    desk.set("production", "9")
    desk.roll_back("production", "lower")
    assert runs(desk, "production") == "8"
    desk.roll_back("production", "3")
    assert runs(desk, "production") == "3"


def test_a_rollback_without_a_past_says_where_one_could_go(desk: PinDesk) -> None:
    with pytest.raises(ReleaseError, match="Say where to go: --to lower, or --to N"):
        desk.roll_back("production")
    with pytest.raises(ReleaseError, match="there is no lower generation"):
        desk.roll_back("production", "lower")
    with pytest.raises(ReleaseError, match="must be previous, lower or a number"):
        desk.roll_back("production", "yesterday")


def test_after_an_edit_by_hand_the_last_told_generation_was_live(desk: PinDesk) -> None:
    desk.set("production", "2")
    path = desk.directory / "overlays" / "production" / "pin.yaml"
    path.write_text(f'flox.dev/environment: "{ENVIRONMENT}:9"\n')
    desk.roll_back("production")
    assert runs(desk, "production") == "2"


def test_an_edit_by_hand_is_found(desk: PinDesk) -> None:
    desk.set("production", "2")
    assert desk.changed_by_hand(desk.log.entries()) == []
    path = desk.directory / "overlays" / "production" / "pin.yaml"
    path.write_text(f'flox.dev/environment: "{ENVIRONMENT}:9"\n')
    (said,) = desk.changed_by_hand(desk.log.entries())
    assert "entry 1 of the history left it at acme/llama-runtime:2" in said


def test_a_history_that_was_altered_stops_changes_before_the_pin_moves(desk: PinDesk) -> None:
    desk.set("production", "2")
    desk.log.path.write_text(desk.log.path.read_text().replace("Ada", "Eve"))
    with pytest.raises(ReleaseError, match="this entry was changed"):
        desk.set("production", "3")
    assert runs(desk, "production") == "2"


def test_a_change_waits_for_another_one_and_does_not_overrule_it(desk: PinDesk) -> None:
    """Else the pin could say what one of them wrote, and the end of the history the other."""
    refused: list[ReleaseError] = []

    def change() -> None:
        try:
            desk.set("staging", "3")
        except ReleaseError as error:
            refused.append(error)

    other = threading.Thread(target=change)
    directory = os.open(desk.directory, os.O_RDONLY)
    fcntl.flock(directory, fcntl.LOCK_EX)
    other.start()
    other.join(0.3)
    assert other.is_alive()
    pin = find_pin(desk.directory, "staging")
    pin.path.write_text(pin.path.read_text().replace(":1", ":2"))
    os.close(directory)
    other.join(30)
    assert "has changed meanwhile" in str(refused)
    assert (runs(desk, "staging"), history(desk)) == ("2", [])


def test_a_change_that_cannot_be_told_is_taken_back(
    desk: PinDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise ReleaseError("no")

    monkeypatch.setattr("appliance.access.audit_log.AuditLog.append", refuse)
    with pytest.raises(ReleaseError, match="no"):
        desk.set("production", "3")
    assert runs(desk, "production") == "1"


def test_a_record_is_told_once_and_its_alteration_is_found(desk: PinDesk) -> None:
    reference = parse_reference(f"{ENVIRONMENT}:2")
    found = PinRecord(reference=str(reference), manifest_lock="a" * 64)
    path, record = desk.record(reference, found)
    desk.record(reference, found)
    assert read_record(desk.directory, reference) == record
    assert [each.action for each in desk.log.entries()] == ["record"]
    assert desk.set("staging", "2").record == record
    assert desk.log.entries()[-1].record == record.digest
    path.write_text(path.read_text().replace("a" * 64, "b" * 64))
    (said,) = desk.changed_by_hand(desk.log.entries())
    assert "is not what entry 2 of the history saw" in said
