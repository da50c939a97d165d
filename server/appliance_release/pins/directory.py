"""Moves the pin of an overlay to another generation, and adds the move to the history."""

from __future__ import annotations

import fcntl
import getpass
import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from appliance.errors import ReleaseError
from appliance_release.pins.history import Change, PinHistory
from appliance_release.pins.overlay_pin import Pin, find_pin, find_pins, write_pin
from appliance_release.pins.record import join_records, read_record, write_record
from appliance_release.pins.reference import parse_reference, why_not_pinned
from appliance_release.programs import git_author, run_program

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from appliance_release.pins.history import Entry
    from appliance_release.pins.record import PinRecord
    from appliance_release.pins.reference import Reference

PREVIOUS = "previous"
LOWER = "lower"


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """`lower` is one generation less, if that is another than `after`.

    `unrecorded` is the last pin in the history, if the pin had been moved without an entry.
    """

    before: Pin
    after: Pin
    record: PinRecord | None
    lower: Reference | None = None
    unrecorded: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PinDirectory:
    """The manifests in `directory`, and the author of changes."""

    directory: Path
    by: str
    why: str | None = None

    @classmethod
    def open(cls, directory: Path, why: str | None = None) -> PinDirectory:
        """Opens the directory in the name that git commits with, else in the user's."""
        by = git_author(run_program) or getpass.getuser()
        return cls(directory=directory, by=by, why=why)

    @property
    def log(self) -> PinHistory:
        return PinHistory(self.directory / "pins" / "history.jsonl")

    def set(self, overlay: str, wanted: str) -> Moved:
        """Pins to `wanted`: a generation of the present environment, or a reference."""
        pin = find_pin(self.directory, overlay)
        if not wanted.isdecimal():
            return self._move(pin, parse_reference(wanted), "set")
        environment = pin.value.partition(":")[0].partition("@")[0]
        return self._move(pin, parse_reference(f"{environment}:{wanted}"), "set")

    def promote(self, source: str, overlay: str) -> Moved:
        reference = parse_pin(find_pin(self.directory, source))
        return self._move(find_pin(self.directory, overlay), reference, "promote")

    def roll_back(self, overlay: str, to: str = PREVIOUS) -> Moved:
        """Pins to what was live before; after another rollback that is the newer one."""
        pin = find_pin(self.directory, overlay)
        current = parse_pin(pin)
        lower = current.at(current.generation - 1) if current.generation > 1 else None
        if to == PREVIOUS:
            target = self._previous(pin)
            return self._move(pin, target, "rollback", lower=None if lower == target else lower)
        if to == LOWER:
            if lower is not None:
                return self._move(pin, lower, "rollback")
            raise ReleaseError(f"{overlay} runs {current}: there is no lower generation.")
        if not to.isdecimal():
            raise ReleaseError(f"--to is {to!r}; it must be previous, lower or a number.")
        return self._move(pin, parse_reference(f"{current.environment}:{to}"), "rollback")

    def _previous(self, pin: Pin) -> Reference:
        previous = self.previously_live(pin)
        if previous is None:
            raise ReleaseError(
                f"The history has no generation of {pin.overlay} before {pin.value}. Name one: "
                "--to lower, or --to N."
            )
        return previous

    def previously_live(self, pin: Pin) -> Reference | None:
        """Returns the last value before the present one, written by `pin` or by an editor."""
        values: list[str] = []
        for entry in self.log.entries():
            if entry.target == pin.overlay:
                values += [] if entry.before is None else [entry.before]
                values.append(entry.after)
        for value in reversed(values):
            if value != pin.value and why_not_pinned(value) is None:
                return parse_reference(value)
        return None

    def record(self, reference: Reference, found: PinRecord) -> tuple[Path, PinRecord]:
        """Adds to the record of a generation."""
        with self._alone():
            entries = self.log.entries()
            old = read_record(self.directory, reference)
            record = join_records(old, found)
            path = write_record(self.directory, reference, record)
            is_known = any(entry.record == record.digest for entry in entries)
            if record != old or not is_known:
                self._tell("record", str(reference), None, str(reference), record)
        return path, record

    def changed_by_hand(self, entries: list[Entry]) -> list[str]:
        """Finds pins and records that differ from the history: edited, or its end is cut off."""
        said: list[str] = []
        for pin in find_pins(self.directory):
            last = last_entry(entries, pin.overlay)
            if last is not None and last.after != pin.value:
                said.append(
                    f"{pin.where}: {pin.overlay} is pinned to {pin.value}, and entry {last.number} "
                    f"of the history left it at {last.after}: the line was edited without "
                    "`appliance pin`, or entries are missing at the end."
                )
        digests = {entry.after: (entry.number, entry.record) for entry in entries if entry.record}
        for reference, (number, digest) in digests.items():
            record = read_record(self.directory, parse_reference(reference))
            if record is None or record.digest != digest:
                said.append(
                    f"The record of {reference} is not what entry {number} of the history saw."
                )
        return said

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Locks the directory: a pin and its entry in the history change together."""
        directory = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(directory, fcntl.LOCK_EX)
            yield
        finally:
            os.close(directory)

    def _move(
        self, pin: Pin, reference: Reference, action: str, lower: Reference | None = None
    ) -> Moved:
        record = read_record(self.directory, reference)
        if pin.value == str(reference):
            return Moved(
                before=pin, after=pin, record=record, unrecorded=self._heal(pin, action, record)
            )
        with self._alone():
            self.log.entries()  # refuses a broken chain before anything is written
            after = write_pin(pin, str(reference))
            try:
                self._tell(action, pin.overlay, pin.value, str(reference), record)
            except ReleaseError:
                write_pin(after, pin.value)
                raise
        return Moved(before=pin, after=after, record=record, lower=lower)

    def _heal(self, pin: Pin, action: str, record: PinRecord | None) -> str | None:
        """Adds an entry for a move without one: made by an editor, or interrupted."""
        with self._alone():
            last = last_entry(self.log.entries(), pin.overlay)
            if last is None or last.after == pin.value:
                return None
            self._tell(action, pin.overlay, last.after, pin.value, record)
        return last.after

    def _tell(
        self, action: str, target: str, before: str | None, after: str, record: PinRecord | None
    ) -> None:
        self.log.append(
            Change(
                by=self.by,
                action=action,
                target=target,
                before=before,
                after=after,
                why=self.why,
                record=None if record is None else record.digest,
            )
        )


def last_entry(entries: list[Entry], overlay: str) -> Entry | None:
    return next((entry for entry in reversed(entries) if entry.target == overlay), None)


def parse_pin(pin: Pin) -> Reference:
    problem = why_not_pinned(pin.value)
    if problem is not None:
        raise ReleaseError(f"{pin.where}: {pin.value!r} {problem}")
    return parse_reference(pin.value)
