"""Progress: a bar on a terminal, lines in a file."""

from __future__ import annotations

import io

import pytest

from appliance.console import progress
from appliance.console.progress import Progress, size_text, time_text
from appliance.console.terminal import Terminal


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (263_275, "263 kB"),
        (999_600, "1.0 MB"),
        (4_200_000_000_000, "4200 GB"),
    ],
)
def test_sizes_have_three_digits(num_bytes: int, text: str) -> None:
    assert size_text(num_bytes) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (99, "99 s"), (600, "10 min"), (7200, "2.0 h")]
)
def test_times_are_short(seconds: float, text: str) -> None:
    assert time_text(seconds) == text


def test_a_terminal_shows_a_bar_and_takes_it_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "REDRAW_S", 0.0)
    screen = Screen()
    shown = Progress(Terminal(screen), 1000)
    shown.add("model\x1b.safetensors", 500)
    assert "############------------  50%  500 bytes of 1.0 kB" in screen.getvalue()
    assert "model.safetensors" in screen.getvalue()
    shown.say("have  config.json")
    shown.finish()
    assert screen.getvalue().endswith("\r\x1b[Khave  config.json\n\r\x1b[K")


def test_a_file_gets_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    text = io.StringIO()
    shown = Progress(Terminal(text), 1000, start_bytes=200)
    shown.add("a", 100)
    assert text.getvalue() == ""
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0.0)
    shown.add("a", 100)
    assert text.getvalue().startswith(" 40%  400 bytes of 1.0 kB")
    assert text.getvalue().endswith("  a\n")


def test_nothing_to_do_is_all_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0.0)
    text = io.StringIO()
    Progress(Terminal(text), 0).add("a", 0)
    assert text.getvalue().startswith("100%")
