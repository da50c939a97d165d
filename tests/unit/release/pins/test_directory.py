"""Rolling forward, promoting and rolling back, each added to the history."""

from __future__ import annotations

import fcntl
import os
import threading
from pathlib import Path

import pytest

from appliance.errors import ReleaseError
from appliance_release.pins.directory import PinDirectory
from appliance_release.pins.overlay_pin import find_pin, write_pin
from appliance_release.pins.record import PinRecord, read_record
from appliance_release.pins.reference import parse_reference

ENVIRONMENT = "acme/llama-runtime"


@pytest.fixture
def pins(tmp_path: Path) -> PinDirectory:
    for overlay in ("staging", "production"):
        folder = tmp_path / "overlays" / overlay
        folder.mkdir(parents=True)
        (folder / "kustomization.yaml").write_text("resources: []\n")
        (folder / "pin.yaml").write_text(f'flox.dev/environment: "{ENVIRONMENT}:1"\n')
    return PinDirectory(directory=tmp_path, by="Ada", why="because")


def runs(pins: PinDirectory, overlay: str) -> str:
    return find_pin(pins.directory, overlay).value.removeprefix(ENVIRONMENT + ":")


def history(pins: PinDirectory) -> list[tuple[str, str, str | None, str]]:
    return [(each.action, each.target, each.before, each.after) for each in pins.log.entries()]


def test_a_change_is_written_and_recorded(pins: PinDirectory) -> None:
    moved = pins.set("staging", "2")
    assert runs(pins, "staging") == "2"
    assert runs(pins, "production") == "1"
    assert (moved.before.value, moved.after.value) == (f"{ENVIRONMENT}:1", f"{ENVIRONMENT}:2")
    (entry,) = pins.log.entries()
    assert (entry.by, entry.action, entry.why) == ("Ada", "set", "because")
    assert (entry.target, entry.before, entry.after) == (
        "staging",
        f"{ENVIRONMENT}:1",
        f"{ENVIRONMENT}:2",
    )


def test_another_environment_can_be_pinned(pins: PinDirectory) -> None:
    pins.set("staging", "acme/llama-runtime-cuda:7")
    assert find_pin(pins.directory, "staging").value == "acme/llama-runtime-cuda:7"
    pins.set("staging", "8")
    assert find_pin(pins.directory, "staging").value == "acme/llama-runtime-cuda:8"


def test_what_is_pinned_already_is_no_change(pins: PinDirectory) -> None:
    pins.set("staging", "1")
    assert history(pins) == []


def test_a_move_that_the_history_missed_is_recorded_when_repeated(
    pins: PinDirectory,
) -> None:
    """A crash between the pin and its entry leaves it so, and so does an editor."""
    pins.set("staging", "2")
    write_pin(find_pin(pins.directory, "staging"), f"{ENVIRONMENT}:3")
    assert pins.changed_by_hand(pins.log.entries())

    moved = pins.set("staging", "3")
    assert moved.unrecorded == f"{ENVIRONMENT}:2"
    assert history(pins)[1:] == [("set", "staging", f"{ENVIRONMENT}:2", f"{ENVIRONMENT}:3")]
    assert pins.changed_by_hand(pins.log.entries()) == []

    assert pins.set("staging", "3").unrecorded is None
    assert len(history(pins)) == 2


def test_an_unpinned_overlay_can_be_pinned(pins: PinDirectory) -> None:
    path = pins.directory / "overlays" / "staging" / "pin.yaml"
    path.write_text(f"flox.dev/environment: {ENVIRONMENT}\n")
    pins.set("staging", "2")
    assert runs(pins, "staging") == "2"
    assert history(pins)[0][2] == ENVIRONMENT


@pytest.mark.parametrize("wanted", ["0", "latest", "a/b", "a/b@2", "-1", "٣"])
def test_only_a_generation_can_be_pinned(wanted: str, pins: PinDirectory) -> None:
    with pytest.raises(ReleaseError):
        pins.set("staging", wanted)
    assert runs(pins, "staging") == "1"
    assert history(pins) == []


def test_a_promotion_takes_the_whole_reference(pins: PinDirectory) -> None:
    pins.set("staging", "acme/other:4")
    pins.promote("staging", "production")
    assert find_pin(pins.directory, "production").value == "acme/other:4"
    assert history(pins)[-1][0] == "promote"


def test_an_unpinned_overlay_cannot_be_promoted(pins: PinDirectory) -> None:
    path = pins.directory / "overlays" / "staging" / "pin.yaml"
    path.write_text(f"flox.dev/environment: {ENVIRONMENT}\n")
    with pytest.raises(ReleaseError, match=r"pin\.yaml:1: .* names no generation"):
        pins.promote("staging", "production")


def test_a_rollback_goes_to_what_was_live_and_names_the_lower_one(pins: PinDirectory) -> None:
    for generation in ("2", "5"):
        pins.set("production", generation)
    moved = pins.roll_back("production")
    assert runs(pins, "production") == "2"
    assert str(moved.lower) == f"{ENVIRONMENT}:4"


def test_the_lower_one_is_not_named_where_it_is_the_previous(pins: PinDirectory) -> None:
    pins.set("production", "2")
    assert pins.roll_back("production").lower is None


def test_a_second_rollback_goes_forward_again(pins: PinDirectory) -> None:
    pins.set("production", "2")
    for expected in ("1", "2", "1"):
        pins.roll_back("production")
        assert runs(pins, "production") == expected


def test_a_rollback_can_go_lower_or_to_a_number(pins: PinDirectory) -> None:
    pins.set("production", "9")
    pins.roll_back("production", "lower")
    assert runs(pins, "production") == "8"
    pins.roll_back("production", "3")
    assert runs(pins, "production") == "3"


def test_a_rollback_without_a_past_says_where_one_could_go(pins: PinDirectory) -> None:
    with pytest.raises(ReleaseError, match="Name one: --to lower, or --to N"):
        pins.roll_back("production")
    with pytest.raises(ReleaseError, match="there is no lower generation"):
        pins.roll_back("production", "lower")
    with pytest.raises(ReleaseError, match="must be previous, lower or a number"):
        pins.roll_back("production", "yesterday")


def test_after_an_edit_by_hand_the_last_recorded_generation_was_live(pins: PinDirectory) -> None:
    pins.set("production", "2")
    path = pins.directory / "overlays" / "production" / "pin.yaml"
    path.write_text(f'flox.dev/environment: "{ENVIRONMENT}:9"\n')
    pins.roll_back("production")
    assert runs(pins, "production") == "2"


def test_an_edit_by_hand_is_found(pins: PinDirectory) -> None:
    pins.set("production", "2")
    assert pins.changed_by_hand(pins.log.entries()) == []
    path = pins.directory / "overlays" / "production" / "pin.yaml"
    path.write_text(f'flox.dev/environment: "{ENVIRONMENT}:9"\n')
    (said,) = pins.changed_by_hand(pins.log.entries())
    assert "entry 1 of the history left it at acme/llama-runtime:2" in said


def test_a_history_that_was_altered_stops_changes_before_the_pin_moves(pins: PinDirectory) -> None:
    pins.set("production", "2")
    pins.log.path.write_text(pins.log.path.read_text().replace("Ada", "Eve"))
    with pytest.raises(ReleaseError, match="this entry was changed"):
        pins.set("production", "3")
    assert runs(pins, "production") == "2"


def test_a_change_waits_for_another_one_and_does_not_overrule_it(pins: PinDirectory) -> None:
    """Else the pin could say what one of them wrote, and the end of the history the other."""
    refused: list[ReleaseError] = []

    def change() -> None:
        try:
            pins.set("staging", "3")
        except ReleaseError as error:
            refused.append(error)

    other = threading.Thread(target=change)
    directory = os.open(pins.directory, os.O_RDONLY)
    fcntl.flock(directory, fcntl.LOCK_EX)
    other.start()
    other.join(0.3)
    assert other.is_alive()
    pin = find_pin(pins.directory, "staging")
    pin.path.write_text(pin.path.read_text().replace(":1", ":2"))
    os.close(directory)
    other.join(30)
    assert "has changed meanwhile" in str(refused)
    assert (runs(pins, "staging"), history(pins)) == ("2", [])


def test_a_change_that_cannot_be_recorded_is_taken_back(
    pins: PinDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise ReleaseError("no")

    monkeypatch.setattr("appliance_release.pins.history.PinHistory.append", refuse)
    with pytest.raises(ReleaseError, match="no"):
        pins.set("production", "3")
    assert runs(pins, "production") == "1"


def test_a_record_is_written_once_and_its_alteration_is_found(pins: PinDirectory) -> None:
    reference = parse_reference(f"{ENVIRONMENT}:2")
    found = PinRecord(reference=str(reference), manifest_lock="a" * 64)
    path, record = pins.record(reference, found)
    pins.record(reference, found)
    assert read_record(pins.directory, reference) == record
    assert [each.action for each in pins.log.entries()] == ["record"]
    assert pins.set("staging", "2").record == record
    assert pins.log.entries()[-1].record == record.digest
    path.write_text(path.read_text().replace("a" * 64, "b" * 64))
    (said,) = pins.changed_by_hand(pins.log.entries())
    assert "is not what entry 2 of the history saw" in said
