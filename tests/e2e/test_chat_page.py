"""The chat page in a real browser, against a scripted server."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.fake_appliance import CHAT, HASHES, STORY, WEB, FakeAppliance, FakeModel, tell
from tests.unit.cli.scripted_server import (
    chat_event,
    chat_events,
    json_reply,
    refused,
    stream_reply,
)

pytestmark = pytest.mark.browser

MAX_PAGE_BYTES = 40_000
STORY_EXAMPLE = "Tell me a story about a brave little fox"


def open_page(page: Page, server: FakeAppliance) -> None:
    page.goto(server.url)
    wait_until_ready(page)


def reload(page: Page) -> None:
    page.reload()
    wait_until_ready(page)


def wait_until_ready(page: Page) -> None:
    """Before that, what is sent stays in the box."""
    expect(page.locator("#light")).to_have_attribute("data-status", "ok")


def ask(page: Page, text: str) -> None:
    page.get_by_label("Message").fill(text)
    page.get_by_label("Message").press("Enter")


def last_answer(page: Page, text: str) -> None:
    """Waits until the last answer is `text` and finished."""
    expect(page.locator(".answer .body").last).to_have_text(text)
    expect(page.get_by_role("button", name="Regenerate")).to_be_visible()


def wide_parts(page: Page) -> object:
    """What scrolls sideways, of all that may scroll at all."""
    return page.evaluate(
        """[...document.querySelectorAll("html, body, main, dialog[open]")]
           .filter((part) => part.scrollWidth > part.clientWidth).map((part) => part.tagName)"""
    )


def test_an_example_is_answered_word_by_word(page: Page, server: FakeAppliance) -> None:
    go_on = threading.Event()

    def words() -> Iterator[bytes]:
        yield chat_event("Once there ")
        go_on.wait(10)
        yield from chat_events("was a fox.", num_tokens=6)

    server.routes[CHAT] = lambda _: stream_reply(words())
    open_page(page, server)
    page.get_by_role("button", name=STORY_EXAMPLE).click()
    expect(page.locator(".answer .body")).to_have_text("Once there ")
    expect(page.locator(".answer")).to_have_attribute("aria-busy", "true")
    go_on.set()
    last_answer(page, "Once there was a fox.")
    expect(page.locator(".user")).to_contain_text(STORY_EXAMPLE)
    expect(page.locator(".note")).to_contain_text("6 tokens")
    expect(page.locator("#announcer")).to_have_text("Once there was a fox.")


def test_the_whole_conversation_is_sent(page: Page, server: FakeAppliance) -> None:
    open_page(page, server)
    ask(page, "Hello")
    last_answer(page, STORY)
    ask(page, "And then?")
    expect(page.locator(".answer")).to_have_count(2)
    last_answer(page, STORY)
    body = server.bodies(CHAT)[-1]
    assert body["model"] == "embedded"
    assert body["temperature"] == 0.7
    assert body["messages"] == [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": f"{STORY} "},
        {"role": "user", "content": "And then?"},
    ]


def test_shift_enter_begins_a_new_line(page: Page, server: FakeAppliance) -> None:
    open_page(page, server)
    message = page.get_by_label("Message")
    message.fill("One")
    message.press("Shift+Enter")
    message.press_sequentially("Two")
    expect(message).to_have_value("One\nTwo")
    assert server.bodies(CHAT) == []


def test_an_empty_message_cannot_be_sent(page: Page, server: FakeAppliance) -> None:
    open_page(page, server)
    expect(page.get_by_role("button", name="Send")).to_be_disabled()
    ask(page, "  ")
    expect(page.locator("#conversation li")).to_have_count(0)


@pytest.mark.parametrize("way", ["button", "Escape", "new chat", "leaving"])
def test_stopping_cancels_on_the_server(page: Page, server: FakeAppliance, way: str) -> None:
    server.routes[CHAT] = server.endless
    open_page(page, server)
    ask(page, "Go on")
    expect(page.locator(".answer .body")).to_contain_text("again again")
    if way == "button":
        page.get_by_role("button", name="Stop").click()
    elif way == "Escape":
        page.keyboard.press("Escape")
    elif way == "new chat":
        page.get_by_role("button", name="New chat").click()
    else:
        page.goto("about:blank")
    assert server.client_left.wait(5)


def test_a_stopped_answer_stays_and_the_talk_goes_on(page: Page, server: FakeAppliance) -> None:
    server.routes[CHAT] = server.endless
    open_page(page, server)
    ask(page, "Go on")
    expect(page.locator(".answer .body")).to_contain_text("again")
    page.get_by_role("button", name="Stop").click()
    expect(page.locator(".note")).to_contain_text("stopped")
    server.routes[CHAT] = tell("Done.")
    ask(page, "Finish")
    last_answer(page, "Done. ")
    roles = [message["role"] for message in server.bodies(CHAT)[-1]["messages"]]  # type: ignore[attr-defined]
    assert roles == ["user", "assistant", "user"]


def test_a_new_chat_while_an_answer_comes_begins_clean(page: Page, server: FakeAppliance) -> None:
    server.routes[CHAT] = server.endless
    open_page(page, server)
    ask(page, "Go on")
    expect(page.locator(".answer .body")).to_contain_text("again")
    page.get_by_role("button", name="New chat").click()
    expect(page.locator("#welcome")).to_be_visible()
    server.routes[CHAT] = tell("Fresh.")
    ask(page, "Hello")
    last_answer(page, "Fresh. ")
    assert server.bodies(CHAT)[-1]["messages"] == [{"role": "user", "content": "Hello"}]


def test_the_servers_refusal_is_shown_and_can_be_tried_again(
    page: Page, server: FakeAppliance
) -> None:
    server.routes[CHAT] = lambda _: refused(503, "The queue is full; try again in a moment.")
    open_page(page, server)
    ask(page, "Hello")
    expect(page.get_by_role("alert")).to_contain_text("The queue is full; try again in a moment.")
    server.routes[CHAT] = tell("Here I am.")
    page.get_by_role("button", name="Try again").click()
    last_answer(page, "Here I am. ")
    expect(page.get_by_role("alert")).to_have_count(0)
    assert server.bodies(CHAT)[-1]["messages"] == [{"role": "user", "content": "Hello"}]


def test_a_question_without_an_answer_is_not_sent_again(page: Page, server: FakeAppliance) -> None:
    server.routes[CHAT] = lambda _: refused(400, "Too long.")
    open_page(page, server)
    ask(page, "Long")
    expect(page.get_by_role("alert")).to_contain_text("Too long.")
    server.routes[CHAT] = tell("Yes.")
    ask(page, "Short")
    last_answer(page, "Yes. ")
    assert server.bodies(CHAT)[-1]["messages"] == [{"role": "user", "content": "Short"}]


@pytest.mark.parametrize(
    ("chunks", "message"),
    [
        ([chat_event("Half")], "The connection broke off before the answer was complete."),
        ([b'data: {"error": {"message": "It failed."}}\n\n'], "It failed."),
        ([b"data: no json\n\n"], "The connection broke off before the answer was complete."),
    ],
)
def test_a_failure_midway_is_shown(
    page: Page, server: FakeAppliance, chunks: list[bytes], message: str
) -> None:
    server.routes[CHAT] = lambda _: stream_reply(chunks)
    open_page(page, server)
    ask(page, "Hello")
    expect(page.get_by_role("alert")).to_contain_text(message)


def test_chunks_may_be_cut_anywhere(page: Page, server: FakeAppliance) -> None:
    raw = b"".join(chat_events("grün ", "✓ 你好")).replace(b"\n", b"\r\n")
    raw = raw.replace(b"gr\\u00fcn", "grün".encode())
    server.routes[CHAT] = lambda _: stream_reply([bytes([byte]) for byte in raw])
    open_page(page, server)
    ask(page, "Hello")
    last_answer(page, "grün ✓ 你好")


def test_the_page_waits_while_the_model_is_loaded(page: Page, server: FakeAppliance) -> None:
    ready = server.routes["GET /health"]
    state = {"status": "loading", "reason": "The model is being loaded."}
    server.routes["GET /health"] = lambda _: json_reply(state, 503)
    page.goto(server.url)
    expect(page.get_by_text("The model is being loaded.")).to_be_visible()
    page.get_by_label("Message").fill("Hello")
    expect(page.get_by_role("button", name="Send")).to_be_disabled()
    server.routes["GET /health"] = ready
    expect(page.get_by_role("button", name="Send")).to_be_enabled()
    expect(page.locator("#notice")).to_be_hidden()


def test_a_server_that_went_away_is_waited_for(page: Page, server: FakeAppliance) -> None:
    open_page(page, server)
    page.route("**/health", lambda route: route.abort())
    page.route("**/v1/chat/completions", lambda route: route.abort())
    ask(page, "Hello")
    expect(page.get_by_role("alert")).to_contain_text("The server cannot be reached.")
    expect(page.locator("#notice")).to_contain_text("The server cannot be reached; trying again.")
    page.unroute_all()
    expect(page.locator("#notice")).to_be_hidden()
    page.get_by_role("button", name="Try again").click()
    last_answer(page, STORY)


def test_markup_in_an_answer_stays_text(page: Page, server: FakeAppliance) -> None:
    markup = '<img src=x onerror="document.title=1"> <script>alert(1)</script>'
    server.routes[CHAT] = tell(markup)
    open_page(page, server)
    ask(page, "Attack")
    last_answer(page, f"{markup} ")
    assert page.locator(".answer img, .answer script").count() == 0


def test_code_and_bold_are_shown_as_such(page: Page, server: FakeAppliance) -> None:
    text = "Is **7**, or `3 + 4`:\n\n```python\nprint(3 + 4)\n```\nand\n```\nopen"
    server.routes[CHAT] = lambda _: stream_reply(chat_events(text))
    open_page(page, server)
    ask(page, "What is 3 + 4?")
    expect(page.locator(".body strong")).to_have_text("7")
    expect(page.locator(".body p code")).to_have_text("3 + 4")
    expect(page.locator(".body pre")).to_have_text(["print(3 + 4)", "open"])


def test_regenerate_asks_the_same_again(page: Page, server: FakeAppliance) -> None:
    open_page(page, server)
    ask(page, "Hello")
    last_answer(page, STORY)
    server.routes[CHAT] = tell("Another.")
    page.get_by_role("button", name="Regenerate").click()
    last_answer(page, "Another. ")
    first, second = server.bodies(CHAT)
    assert first == second


def test_settings_are_sent_and_kept(page: Page, server: FakeAppliance) -> None:
    open_page(page, server)
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("System prompt").fill("Be brief.")
    page.get_by_label("Temperature").fill("0.2")
    page.get_by_label("Longest answer, in tokens").fill("9")
    page.get_by_label("Seed").fill("3")
    page.keyboard.press("Escape")
    reload(page)
    ask(page, "Hello")
    last_answer(page, STORY)
    body = server.bodies(CHAT)[0]
    assert (body["temperature"], body["max_tokens"], body["seed"]) == (0.2, 9, 3)
    assert body["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello"},
    ]


def test_the_conversation_survives_a_reload_and_ends_with_a_new_chat(
    page: Page, server: FakeAppliance
) -> None:
    open_page(page, server)
    ask(page, "Hello")
    last_answer(page, STORY)
    reload(page)
    last_answer(page, STORY)
    page.get_by_role("button", name="New chat").click()
    expect(page.locator("#conversation li")).to_have_count(0)
    reload(page)
    expect(page.locator("#welcome")).to_be_visible()


def test_what_is_running_is_shown_in_full(page: Page, server: FakeAppliance) -> None:
    open_page(page, server)
    expect(page.locator("#weights-hash")).to_have_text(HASHES["weights"][:8])
    for digest in HASHES.values():
        expect(page.locator("#plate-hashes")).to_contain_text(digest[:12])
    page.get_by_title("What is running").click()
    for digest in HASHES.values():
        expect(page.locator("#identity-rows")).to_contain_text(digest)
    page.get_by_role("button", name="Copy the weights hash").click()
    expect(page.locator("#identity-rows")).to_contain_text("Copied")


def test_every_control_has_a_name(page: Page, server: FakeAppliance) -> None:
    open_page(page, server)
    for button in page.locator("button").all():
        assert button.get_attribute("aria-label") or (button.text_content() or "").strip()
    for control in page.locator("input, textarea").all():
        name = control.get_attribute("id")
        assert page.locator(f"label[for={name}]").count() == 1


def test_the_keyboard_alone_is_enough(page: Page, server: FakeAppliance) -> None:
    open_page(page, server)
    expect(page.get_by_label("Message")).to_be_focused()
    page.keyboard.type("Hello")
    page.keyboard.press("Enter")
    last_answer(page, STORY)
    expect(page.get_by_label("Message")).to_be_focused()
    page.get_by_role("button", name="Settings").press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Settings")).to_be_focused()


def test_nothing_is_wider_than_a_phone(phone: Page, server: FakeAppliance) -> None:
    server.models = [FakeModel("m" * 200)]
    server.routes[CHAT] = tell("w" * 400 + "\n```\n" + "c" * 400 + "\n```")
    open_page(phone, server)
    assert wide_parts(phone) == []
    ask(phone, "q" * 400)
    expect(phone.locator(".body pre")).to_be_visible()
    assert wide_parts(phone) == []
    phone.get_by_role("button", name="Settings").click()
    assert wide_parts(phone) == []
    phone.get_by_role("button", name="Close").click()
    phone.get_by_title("What is running").click()
    expect(phone.locator("#identity-rows")).to_contain_text(HASHES["server"])
    assert wide_parts(phone) == []


def test_a_small_page_begins_at_its_top(phone: Page, server: FakeAppliance) -> None:
    open_page(phone, server)
    main = phone.locator("main")
    assert main.evaluate("(it) => it.scrollHeight > it.clientHeight")
    assert main.evaluate("(it) => it.scrollTop") == 0


def test_controls_are_large_enough_for_a_thumb(phone: Page, server: FakeAppliance) -> None:
    open_page(phone, server)
    for name in ("New chat", "Settings", "Send"):
        box = phone.get_by_role("button", name=name).bounding_box()
        assert box is not None
        assert min(box["width"], box["height"]) >= 40


def test_the_page_is_small() -> None:
    assert sum(file.stat().st_size for file in WEB.iterdir()) < MAX_PAGE_BYTES
