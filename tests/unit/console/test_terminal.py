"""What is written for people reaches a terminal or a file, and a stream that fails harms nobody."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from appliance.console.terminal import Terminal


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


class Watched(Screen):
    """A screen that says when a text has been written on it."""

    def __init__(self, awaited: str) -> None:
        super().__init__()
        self._awaited = awaited
        self.has_it = threading.Event()

    def write(self, text: str) -> int:
        if self._awaited in text:
            self.has_it.set()
        return super().write(text)


def test_loading_counts_on_a_terminal_and_leaves_an_empty_line_behind() -> None:
    screen = Screen()
    with Terminal(screen).loading("embedded"):
        pass
    assert screen.getvalue().startswith("\r  loading embedded … 0.")
    assert screen.getvalue().endswith("\r\x1b[K")


def test_loading_is_one_line_in_a_file() -> None:
    file = io.StringIO()
    with Terminal(file).loading("embedded"):
        pass
    assert file.getvalue() == "loading embedded\n"


def test_the_line_says_how_far_hashing_has_come() -> None:
    screen = Watched(", hashing 41 %")
    terminal = Terminal(screen)
    with terminal.loading("embedded"):
        terminal.show_hashing(41, 100)
        assert screen.has_it.wait(10)


def test_the_line_forgets_the_hashing_when_it_is_done() -> None:
    screen = Screen()
    terminal = Terminal(screen)
    terminal.show_hashing(41, 100)
    terminal.show_hashing(100, 100)
    with terminal.loading("embedded"):
        pass
    assert "hashing" not in screen.getvalue()


def test_a_file_is_told_nothing_of_what_passes() -> None:
    file = io.StringIO()
    with Terminal(file).counting("checking"):
        pass
    assert file.getvalue() == ""


def test_a_name_cannot_send_escape_sequences_or_fill_the_line() -> None:
    screen = Screen()
    with Terminal(screen).loading("\x1b[2J" + "m" * 200):
        pass
    assert "\x1b[2J" not in screen.getvalue()
    assert max(map(len, screen.getvalue().split("\r"))) < 80


def test_no_stream_at_all_is_written_to_in_vain() -> None:
    terminal = Terminal(None)
    terminal.write("lost")
    assert not terminal.is_interactive


def test_a_closed_stream_is_written_to_in_vain() -> None:
    stream = io.StringIO()
    stream.close()
    terminal = Terminal(stream)
    with terminal.loading("embedded"):
        terminal.write("lost")


def test_a_full_disk_is_written_to_in_vain() -> None:
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        Terminal(full).write("lost")
        descriptor = os.open(os.devnull, os.O_WRONLY)
        os.dup2(descriptor, full.fileno())  # or closing it would try again
        os.close(descriptor)


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full", "<&- >&- 2>&-", ">/dev/full"])
def test_a_refusal_keeps_its_exit_code_whatever_the_streams_are(redirection: str) -> None:
    command = f'"$0" -m appliance serve --port x {redirection}'
    run = subprocess.run(["sh", "-c", command, sys.executable], capture_output=True, check=False)
    assert run.returncode == 2
