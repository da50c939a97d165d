"""Takes the pictures of the documentation anew: `python -m tests.e2e.take_screenshots URL [DIR]`.

URL is that of a running `appliance serve`. The seed is fixed, so the same model gives the same
picture. chat.png goes into docs/images unless DIR says otherwise; the rest is to be looked at.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from playwright.sync_api import Browser, Page, ViewportSize, expect, sync_playwright

from tests.e2e.conftest import CHROMIUM_FLAGS, find_chromium

IMAGES = Path(__file__).parents[2] / "docs" / "images"
QUESTIONS = ("Tell me a story about a brave little fox", "What is the opposite of hot?")
DESKTOP = ViewportSize(width=1080, height=700)
PHONE = ViewportSize(width=390, height=780)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("directory", nargs="?", type=Path)
    parser.add_argument("--seed", default="1")
    arguments = parser.parse_args()
    url, seed, directory = arguments.url, arguments.seed, arguments.directory
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=CHROMIUM_FLAGS)
        take_chat(browser, url, seed, (directory or IMAGES) / "chat.png")
        if directory is not None:
            take_rest(browser, url, seed, directory)
        browser.close()


def take_chat(browser: Browser, url: str, seed: str, file: Path) -> None:
    page = browser.new_page(viewport=DESKTOP)
    talk(page, url, seed)
    page.screenshot(path=file)


def take_rest(browser: Browser, url: str, seed: str, directory: Path) -> None:
    dark = browser.new_page(viewport=DESKTOP, color_scheme="dark")
    dark.goto(url)
    expect(dark.locator("#light")).to_have_attribute("data-status", "ok")
    dark.screenshot(path=directory / "welcome-dark.png")
    talk(dark, url, seed)
    dark.screenshot(path=directory / "chat-dark.png")
    phone = browser.new_page(viewport=PHONE, device_scale_factor=2, is_mobile=True, has_touch=True)
    talk(phone, url, seed)
    phone.screenshot(path=directory / "phone.png")
    phone.get_by_title("What is running").click()
    expect(phone.locator("#identity-rows")).to_contain_text("fingerprint")
    phone.screenshot(path=directory / "phone-identity.png")
    for path, sign in (("docs", ".opblock"), ("redoc", "h1")):
        page = browser.new_page(viewport=DESKTOP)
        page.goto(f"{url}/{path}")
        page.locator(sign).first.wait_for()
        page.screenshot(path=directory / f"{path}.png")


def talk(page: Page, url: str, seed: str) -> None:
    page.goto(url)
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("Seed").fill(seed)
    page.get_by_role("button", name="Close").click()
    for number, question in enumerate(QUESTIONS, start=1):
        page.get_by_label("Message").fill(question)
        page.get_by_label("Message").press("Enter")
        expect(page.locator(".answer:not(.writing)")).to_have_count(number)
    page.get_by_label("Message").blur()
    page.mouse.move(0, 0)


if __name__ == "__main__":
    main()
