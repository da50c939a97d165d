"""What end-to-end tests stand on: a real server process, and a browser cut off from the net."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, sync_playwright

import appliance
from tests.e2e.fake_appliance import FakeAppliance

START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 20
CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
)
DESKTOP = (1100, 760)
PHONE = (320, 640)


@pytest.fixture(scope="session")
def live_url() -> Iterator[str]:
    """The address of `appliance serve` with the embedded model, on a free port."""
    command = [sys.executable, "-m", "appliance", "serve", "--port", "0"]
    package_root = str(Path(appliance.__file__).parents[1])
    environ = {**os.environ, "PYTHONPATH": package_root}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environ) as process:
        watchdog = threading.Timer(START_TIMEOUT_S, process.kill)
        watchdog.start()
        assert process.stderr is not None
        said: list[str] = []
        url = None
        for line in process.stderr:
            said.append(line)
            if match := re.fullmatch(r"  (http://\S+)\n", line):
                url = match[1]
                break
        watchdog.cancel()
        if url is None:
            process.kill()
            pytest.fail(f"the server did not become ready:\n{''.join(said)}")
        # Nobody reads its log from here on, and a full pipe would stop it.
        threading.Thread(target=process.stderr.read, daemon=True).start()
        yield url
        process.send_signal(signal.SIGTERM)
        process.wait(STOP_TIMEOUT_S)


def find_chromium() -> str | None:
    return next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)


# A module each: while playwright runs, no test of another module could start an event loop.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = find_chromium()
    if path is None:
        reason = "no chromium on the PATH; apt-get install chromium"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=CHROMIUM_FLAGS)
        yield browser
        browser.close()


@dataclass
class Visit:
    """A page and what must not happen on it."""

    page: Page
    outside: list[str] = field(default_factory=list)  # requests to anywhere but this machine
    errors: list[str] = field(default_factory=list)

    def watch(self) -> None:
        self.page.on("request", lambda request: self._note_request(request.url))
        self.page.on("console", self._note_message)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))

    def _note_request(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.hostname != "127.0.0.1" and parts.scheme not in ("data", "blob"):
            self.outside.append(url)

    def _note_message(self, message: ConsoleMessage) -> None:
        # The browser itself reports refused requests; the page is tested to handle them.
        if message.type == "error" and not message.text.startswith("Failed to load resource"):
            self.errors.append(message.text)


def visit(context: BrowserContext) -> Iterator[Page]:
    context.set_default_timeout(30_000)
    visit = Visit(context.new_page())
    visit.watch()
    yield visit.page
    context.close()
    assert visit.outside == []
    assert visit.errors == []


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A desktop's."""
    width, height = DESKTOP
    yield from visit(browser.new_context(viewport={"width": width, "height": height}))


@pytest.fixture
def phone(browser: Browser) -> Iterator[Page]:
    """The narrowest there is."""
    width, height = PHONE
    yield from visit(
        browser.new_context(
            viewport={"width": width, "height": height}, has_touch=True, is_mobile=True
        )
    )


@pytest.fixture
def server() -> Iterator[FakeAppliance]:
    with FakeAppliance() as server:
        yield server
        server.client_left.set()
