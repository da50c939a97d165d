"""The pages of a running server in a real browser that can reach nothing else."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

import pytest
from playwright.sync_api import Browser, HttpCredentials, Page, expect

from appliance.access.grant import EVERYTHING
from appliance.access.key_file import KeyFile
from tests.e2e.conftest import visit
from tests.e2e.test_process import started

pytestmark = pytest.mark.browser

PATHS = ("/generate", "/health", "/v1/chat/completions", "/v1/embeddings", "/tokenize")


def fetch(url: str) -> dict[str, dict[str, str]]:
    with urllib.request.urlopen(url) as response:  # noqa: S310 - our own server
        value = json.load(response)
    assert isinstance(value, dict)
    return value


def test_the_chat_page_streams_an_answer_of_the_embedded_model(page: Page, live_url: str) -> None:
    page.goto(live_url)
    page.get_by_role("button", name="Who are you?").click()
    expect(page.locator(".answer .body")).not_to_be_empty()
    expect(page.get_by_role("button", name="Regenerate")).to_be_visible()
    expect(page.locator(".note")).to_contain_text("token")
    expect(page.get_by_role("alert")).to_have_count(0)


def test_the_same_seed_repeats_the_answer(page: Page, live_url: str) -> None:
    page.goto(live_url)
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("Seed").fill("7")
    page.get_by_label("Longest answer, in tokens").fill("24")
    page.get_by_role("button", name="Close").click()
    answers = []
    for _ in range(2):
        page.get_by_role("button", name="New chat").click()
        page.get_by_role("button", name="Tell me a story").click()
        expect(page.get_by_role("button", name="Regenerate")).to_be_visible()
        answers.append(page.locator(".answer .body").text_content())
    assert answers[0]
    assert answers[0] == answers[1]


def test_the_servers_own_refusal_reaches_the_reader(page: Page, live_url: str) -> None:
    page.goto(live_url)
    page.get_by_label("Message").fill("word " * 5000)
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_role("alert")).to_contain_text("context")


def test_what_is_running_is_what_the_server_says(page: Page, live_url: str) -> None:
    hashes = fetch(f"{live_url}/version")["hashes"]
    page.goto(live_url)
    expect(page.locator("#weights-hash")).to_have_text(hashes["weights"][:8])
    page.get_by_title("What is running").click()
    for digest in hashes.values():
        expect(page.locator("#identity-rows")).to_contain_text(digest)


def test_a_picked_model_is_loaded_and_answers(page: Page) -> None:
    small = "small=embedded,load=first-use"
    with started("--model", "embedded", "--model", small) as server:
        page.goto(f"http://{server.address}")
        page.get_by_role("combobox", name="Model").select_option(label="small · loads at first use")
        page.get_by_role("button", name="Who are you?").click()
        expect(page.locator(".note")).to_contain_text("small · ")
        expect(page.get_by_role("button", name="Regenerate")).to_be_visible()
        expect(page.locator(".answer .body")).not_to_be_empty()
        expect(page.locator("#light")).to_have_attribute("data-status", "ok")
        expect(page.locator("#plate-hashes")).to_contain_text("weights")
        page.goto("about:blank")


def test_the_phone_page_does_not_scroll_sideways(phone: Page, live_url: str) -> None:
    phone.goto(live_url)
    phone.get_by_role("button", name="What is 3 + 4?").click()
    expect(phone.get_by_role("button", name="Regenerate")).to_be_visible()
    for part in ("html", "main"):
        assert phone.locator(part).evaluate("(it) => it.scrollWidth - it.clientWidth") == 0


def test_docs_list_every_operation(page: Page, live_url: str) -> None:
    page.goto(f"{live_url}/docs")
    for path in PATHS:
        operation = page.locator(f'.opblock-summary-path[data-path="{path}"]')
        expect(operation.first).to_be_visible()


def test_docs_can_try_an_operation(page: Page, live_url: str) -> None:
    page.goto(f"{live_url}/docs")
    operation = page.locator(".opblock", has=page.locator('[data-path="/health"]'))
    operation.locator(".opblock-summary").click()
    operation.get_by_role("button", name="Try it out").click()
    operation.get_by_role("button", name="Execute").click()
    expect(operation.locator(".live-responses-table")).to_contain_text('"status": "ok"')


def test_redoc_lists_every_operation(page: Page, live_url: str) -> None:
    page.goto(f"{live_url}/redoc")
    for path in PATHS:
        expect(page.get_by_text(path, exact=True).first).to_be_attached()
    expect(page.get_by_role("heading", name="Llama Appliance")).to_be_visible()


def test_a_key_as_the_password_opens_the_chat_page(browser: Browser, tmp_path: Path) -> None:
    file = KeyFile(tmp_path / "keys.json")
    key, _ = file.add("reader", expires=None, grant=EVERYTHING)
    with started("--keys", str(file.path), "--log-level", "warning") as server:
        url = f"http://{server.address}"
        credentials: HttpCredentials = {"username": "anyone", "password": key, "origin": url}
        for page in visit(browser.new_context(http_credentials=credentials)):
            page.goto(url)
            page.get_by_role("button", name="Who are you?").click()
            expect(page.locator(".answer .body")).not_to_be_empty()
            expect(page.get_by_role("button", name="Regenerate")).to_be_visible()
            expect(page.get_by_role("alert")).to_have_count(0)
