"""The chat page of a server with several models, in a real browser, against a scripted server."""

from __future__ import annotations

import json
import threading
from dataclasses import replace

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.e2e.fake_appliance import (
    CHAT,
    DEFAULT,
    HASHES,
    ROOT,
    STORY,
    FakeAppliance,
    FakeModel,
    model_list,
    tell_when,
)
from tests.e2e.test_chat_page import ask, last_answer, open_page, reload, wide_parts
from tests.unit.cli.scripted_server import json_reply, refused

pytestmark = pytest.mark.browser

HASHES_OF_SMALL = {part: digest[::-1] for part, digest in HASHES.items()}
REASON = "The model could not be loaded."
READY = FakeModel("small", hashes=HASHES_OF_SMALL)
UNLOADED = FakeModel("small", "unloaded", "The model is not loaded; the first request loads it.")
LOADING = FakeModel("small", "loading", "The model is being loaded.")
FAILED = FakeModel("broken", "failed", REASON)


@pytest.fixture
def server(server: FakeAppliance) -> FakeAppliance:
    """One with two models, both loaded."""
    server.models = [FakeModel(DEFAULT), READY]
    return server


def picker(page: Page) -> Locator:
    return page.get_by_role("combobox", name="Model", exact=True)


def options(page: Page) -> list[str]:
    return picker(page).locator("option").all_text_contents()


def light(page: Page, status: str) -> None:
    expect(page.locator("#light")).to_have_attribute("data-status", status)


def test_one_model_is_named_and_cannot_be_picked(page: Page, server: FakeAppliance) -> None:
    server.models = [FakeModel(DEFAULT)]
    open_page(page, server)
    expect(page.locator("#model-name")).to_have_text(DEFAULT)
    expect(picker(page)).to_have_count(0)
    ask(page, "Hello")
    last_answer(page, STORY)
    expect(page.locator(".note")).not_to_contain_text(DEFAULT)


def test_the_default_model_is_asked_until_another_is_picked(
    page: Page, server: FakeAppliance
) -> None:
    open_page(page, server)
    expect(picker(page)).to_have_value(DEFAULT)
    assert options(page) == [DEFAULT, "small"]
    ask(page, "Hello")
    last_answer(page, STORY)
    picker(page).select_option("small")
    page.get_by_role("button", name="Regenerate").click()
    expect(page.locator(".note")).to_contain_text("small · ")
    last_answer(page, STORY)
    assert [body["model"] for body in server.bodies(CHAT)] == [DEFAULT, "small"]


def test_everything_shown_is_of_the_picked_model(page: Page, server: FakeAppliance) -> None:
    open_page(page, server)
    picker(page).select_option("small")
    expect(page).to_have_title("small · Llama Appliance")
    expect(page.locator("#plate-model")).to_have_text("small")
    expect(page.locator("#weights-hash")).to_have_text(HASHES_OF_SMALL["weights"][:8])
    page.get_by_title("What is running").click()
    rows = page.locator("#identity-rows")
    for digest in HASHES_OF_SMALL.values():
        expect(page.locator("#plate-hashes")).to_contain_text(digest[:12])
        expect(rows).to_contain_text(digest)
    expect(rows.locator("div", has_text="root hash")).to_contain_text(ROOT)
    expect(rows).not_to_contain_text(HASHES["weights"])
    expect(rows).not_to_contain_text("[object")
    expect(rows.locator("dt", has_text="models")).to_have_count(0)


def test_the_choice_is_kept(page: Page, server: FakeAppliance) -> None:
    open_page(page, server)
    picker(page).select_option("small")
    reload(page)
    expect(picker(page)).to_have_value("small")
    ask(page, "Hello")
    last_answer(page, STORY)
    assert server.bodies(CHAT)[0]["model"] == "small"


def test_a_choice_that_the_server_no_longer_has_becomes_the_default(
    page: Page, server: FakeAppliance
) -> None:
    open_page(page, server)
    picker(page).select_option("small")
    server.models = [FakeModel(DEFAULT), FakeModel("large")]
    reload(page)
    expect(picker(page)).to_have_value(DEFAULT)
    expect(page.locator("#plate-model")).to_have_text(DEFAULT)
    ask(page, "Hello")
    last_answer(page, STORY)
    assert server.bodies(CHAT)[0]["model"] == DEFAULT


def test_a_model_that_vanishes_while_the_page_is_open_becomes_the_default(
    page: Page, server: FakeAppliance
) -> None:
    open_page(page, server)
    picker(page).select_option("small")
    answer = server.routes[CHAT]
    server.models = [FakeModel(DEFAULT)]
    server.routes[CHAT] = lambda _: refused(404, "There is no model small.")
    ask(page, "Hello")
    expect(page.get_by_role("alert")).to_contain_text("There is no model small.")
    expect(picker(page)).to_have_count(0)
    server.routes[CHAT] = answer
    page.get_by_role("button", name="Try again").click()
    last_answer(page, STORY)
    assert server.bodies(CHAT)[-1]["model"] == DEFAULT


def test_an_unloaded_model_says_so_and_is_loaded_by_its_first_question(
    page: Page, server: FakeAppliance
) -> None:
    server.models[1] = UNLOADED
    loaded = threading.Event()
    server.routes[CHAT] = tell_when(loaded, "Here.")
    open_page(page, server)
    assert options(page) == [DEFAULT, "small · loads at first use"]
    picker(page).select_option("small")
    light(page, "unloaded")
    expect(page.locator("#plate-hashes")).to_have_text("stateloads at first use")
    expect(page.locator("#weights-hash")).to_be_empty()
    ask(page, "Hello")
    notice = page.locator("#notice")
    expect(notice).to_have_text("small is being loaded; its answer begins then.")
    server.models[1] = LOADING
    light(page, "loading")
    expect(notice).to_have_text("small is being loaded; its answer begins then.")
    server.models[1] = READY
    loaded.set()
    last_answer(page, "Here.")
    expect(notice).to_be_hidden()
    light(page, "ok")
    expect(page.locator("#weights-hash")).to_have_text(HASHES_OF_SMALL["weights"][:8])
    assert options(page) == [DEFAULT, "small"]


def test_the_only_model_may_be_loaded_by_the_first_question(
    page: Page, server: FakeAppliance
) -> None:
    server.models = [UNLOADED]
    page.goto(server.url)
    light(page, "unloaded")
    expect(page.locator("#model-name")).to_have_text("small")
    page.get_by_title("What is running").click()
    expect(page.locator("#identity-rows")).to_contain_text("loads at first use")
    page.keyboard.press("Escape")
    server.models = [READY]
    ask(page, "Hello")
    last_answer(page, STORY)
    light(page, "ok")


def test_a_model_that_is_being_loaded_is_waited_for(page: Page, server: FakeAppliance) -> None:
    server.models[1] = LOADING
    open_page(page, server)
    assert options(page) == [DEFAULT, "small · loading"]
    picker(page).select_option("small")
    expect(page.locator("#notice")).to_have_text("small is being loaded.")
    page.get_by_label("Message").fill("Hello")
    expect(page.get_by_role("button", name="Send")).to_be_disabled()
    server.models[1] = READY
    expect(page.get_by_role("button", name="Send")).to_be_enabled()
    expect(page.locator("#notice")).to_be_hidden()


def test_a_failed_model_cannot_be_picked_and_says_why(page: Page, server: FakeAppliance) -> None:
    server.models = [FakeModel(DEFAULT), READY, FAILED]
    open_page(page, server)
    failed = picker(page).locator("option", has_text="broken")
    expect(failed).to_have_text(f"broken · {REASON}")
    expect(failed).to_be_disabled()
    expect(picker(page).locator("option:enabled")).to_have_count(2)


def test_a_failed_default_gives_way_to_a_model_that_answers(
    page: Page, server: FakeAppliance
) -> None:
    server.models = [FAILED, READY]
    open_page(page, server)
    expect(picker(page)).to_have_value("small")
    ask(page, "Hello")
    last_answer(page, STORY)
    assert server.bodies(CHAT)[0]["model"] == "small"


def test_a_load_that_fails_is_told_and_can_be_tried_again(
    page: Page, server: FakeAppliance
) -> None:
    server.models[1] = UNLOADED
    answer = server.routes[CHAT]
    server.routes[CHAT] = lambda _: refused(503, "The model small needs 9.00 GB.")
    open_page(page, server)
    picker(page).select_option("small")
    server.models[1] = replace(FAILED, name="small")
    ask(page, "Hello")
    expect(page.get_by_role("alert")).to_contain_text("The model small needs 9.00 GB.")
    light(page, "failed")
    expect(page.locator("#plate-hashes")).to_have_text(f"state{REASON}")
    expect(page.locator("#notice")).to_be_hidden()
    server.models[1] = READY
    server.routes[CHAT] = answer
    page.get_by_role("button", name="Try again").click()
    last_answer(page, STORY)
    light(page, "ok")


def test_only_what_this_client_may_use_can_be_picked(page: Page, server: FakeAppliance) -> None:
    allowed = [READY, FakeModel("large")]
    server.models = [FakeModel(DEFAULT), *allowed]
    server.routes["GET /v1/models"] = lambda _: json_reply(model_list(allowed))
    open_page(page, server)
    assert options(page) == ["small", "large"]
    ask(page, "Hello")
    last_answer(page, STORY)
    assert server.bodies(CHAT)[0]["model"] == "small"


def test_models_are_listed_where_their_hashes_are_refused(
    page: Page, server: FakeAppliance
) -> None:
    server.routes["GET /v1/models"] = lambda _: refused(401, "No key.")
    open_page(page, server)
    assert options(page) == [DEFAULT, "small"]
    expect(page.locator("#weights-hash")).to_have_text(HASHES["weights"][:8])


def test_the_picker_shows_what_changed_when_it_is_opened(page: Page, server: FakeAppliance) -> None:
    open_page(page, server)
    server.models[1] = UNLOADED
    picker(page).focus()
    expect(picker(page).locator("option").last).to_have_text("small · loads at first use")


def test_the_keyboard_picks_a_model(page: Page, server: FakeAppliance) -> None:
    open_page(page, server)
    page.get_by_role("link", name="Llama Appliance").focus()
    page.keyboard.press("Tab")
    expect(picker(page)).to_be_focused()
    page.keyboard.press("ArrowDown")
    expect(picker(page)).to_have_value("small")
    expect(page.locator("#plate-model")).to_have_text("small")


def test_a_phone_has_room_for_the_picker(phone: Page, server: FakeAppliance) -> None:
    server.models = [FakeModel("m" * 200), UNLOADED, replace(FAILED, reason="w" * 300)]
    open_page(phone, server)
    for name in ("m" * 200, "small"):
        picker(phone).select_option(name)
        assert wide_parts(phone) == []
        for control in (picker(phone), phone.get_by_role("button", name="Settings")):
            box = control.bounding_box()
            assert box is not None
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= 320
            assert min(box["width"], box["height"]) >= 36


def test_all_identities_can_be_copied(page: Page, server: FakeAppliance) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    open_page(page, server)
    page.get_by_title("What is running").click()
    expect(page.locator("#identity-rows")).to_contain_text("fingerprint")
    page.get_by_role("button", name="Copy as JSON").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    copied = json.loads(page.evaluate("navigator.clipboard.readText()"))
    assert [model["model"] for model in copied["models"]] == [DEFAULT, "small"]
