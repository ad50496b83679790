"""The console in a real Chromium, over a real gateway."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect

from loadtests.gateway_process import GatewayProcess
from loadtests.platform import API_KEY, running_platform
from loadtests.provider import running_provider
from loadtests.sender import Sender
from loadtests.signing import SignedRequest

pytestmark = pytest.mark.browser

PATIENCE_MS = 15_000


@pytest.fixture
def problems() -> list[str]:
    return []


@pytest.fixture
def context(browser: Browser, problems: list[str]) -> Iterator[BrowserContext]:
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    context.set_default_timeout(PATIENCE_MS)
    expect.set_options(timeout=PATIENCE_MS)

    def heard(message: ConsoleMessage) -> None:
        if message.type == "error":
            problems.append(message.text)

    context.on("console", heard)
    context.on("weberror", lambda error: problems.append(str(error.error)))
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext, gateway: GatewayProcess, problems: list[str]) -> Iterator[Page]:
    page = context.new_page()
    page.goto(gateway.url)
    yield page
    assert problems == []


@pytest.fixture(scope="module")
def scripted_gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """A gateway of its own, with one worker, a scripted model and the tools that hang and die."""
    with running_provider() as provider:
        settings = {
            "GATEHOUSE_MODEL": "openai:scripted",
            "OPENAI_BASE_URL": provider.openai_url,
            "GATEHOUSE_WORKERS": "1",
            "GATEHOUSE_MAX_ATTEMPTS": "1",
            "GATEHOUSE_TOOLS": "tests.e2e.hostile_tools",
        }
        with GatewayProcess(tmp_path_factory.mktemp("scripted"), settings) as gateway:
            yield gateway


@pytest.fixture
def scripted_page(context: BrowserContext, scripted_gateway: GatewayProcess, problems: list[str]) -> Iterator[Page]:
    page = context.new_page()
    page.goto(scripted_gateway.url)
    expect(page.locator("#live")).to_have_text("live")
    yield page
    page.close()
    assert problems == []


def say(page: Page, text: str) -> None:
    page.get_by_label("Message", exact=True).fill(text)
    page.get_by_role("button", name="Send").click()


def test_the_first_minute_shows_a_reply_and_a_todo_list(page: Page) -> None:
    expect(page.locator("#live")).to_have_text("live")
    say(page, "add buy milk")
    expect(page.locator(".message.user")).to_have_text("add buy milk")
    expect(page.locator(".message.assistant")).to_contain_text("buy milk")
    expect(page.locator("#todos li")).to_have_text(["buy milk"])
    say(page, "done 1")
    expect(page.locator("#todos li.completed")).to_have_text(["buy milk"])
    expect(page.locator("#session-used")).to_have_text(re.compile(r"[\d,.]+ tokens"))
    expect(page.locator("#sessions [aria-current=true]")).to_have_count(1)
    page.get_by_role("link", name="Workers").click()
    expect(page.locator("#workers tr")).to_have_count(1)


def test_a_reload_shows_the_same_conversation(page: Page) -> None:
    say(page, "add call mum")
    expect(page.locator("#todos li")).to_have_text(["call mum"])
    page.reload()
    expect(page.locator(".message.user")).to_have_text("add call mum")
    expect(page.locator("#todos li")).to_have_text(["call mum"])


def test_a_command_is_answered_on_the_page_and_what_it_takes_back_is_gone(page: Page) -> None:
    say(page, "add buy bread")
    expect(page.locator("#todos li")).to_have_text(["buy bread"])
    say(page, "/undo")
    expect(page.locator("#todos li")).to_have_count(0)
    expect(page.locator(".message")).to_have_text(["/undo", "Your last message and what came of it are taken back."])
    say(page, "hello again")
    expect(page.locator(".message.user")).to_have_text(["hello again"])


def test_a_new_session_is_empty_and_the_old_one_is_a_click_away(page: Page) -> None:
    say(page, "add water the plants")
    expect(page.locator("#todos li")).to_have_count(1)
    old = page.locator("#session-name").inner_text()
    page.get_by_role("button", name="New session").click()
    expect(page.locator("#todos li")).to_have_count(0)
    expect(page.locator("#welcome")).to_be_visible()
    page.locator("#sessions a", has_text=old).click()
    expect(page.locator("#todos li")).to_have_text(["water the plants"])


def test_words_are_never_markup(page: Page) -> None:
    words = "<img src=x onerror=\"document.title='owned'\"><b>bold</b>"
    say(page, words)
    expect(page.locator(".message.user")).to_have_text(words)
    expect(page.locator(".message.assistant")).to_contain_text("<b>bold</b>")
    assert page.locator(".messages img, .messages b").count() == 0
    expect(page).to_have_title("Gatehouse")


def test_another_page_sees_the_list_change_while_it_watches(
    page: Page, context: BrowserContext, gateway: GatewayProcess
) -> None:
    say(page, "add first")
    expect(page.locator("#todos li")).to_have_count(1)
    other = context.new_page()
    other.goto(gateway.url)
    expect(other.locator("#todos li")).to_have_text(["first"])
    say(page, "add second")
    expect(other.locator("#todos li")).to_have_text(["first", "second"])


def test_the_list_changes_on_the_page_while_its_turn_still_runs(scripted_page: Page) -> None:
    page = scripted_page
    say(page, '[[tool todo {"todos": [{"id": "1", "content": "buy milk"}]}]] [[tool sleep_on_the_loop]]')
    expect(page.locator("#todos li")).to_have_text(["buy milk"])
    expect(page.locator("#session-state")).not_to_be_empty()
    expect(page.get_by_role("button", name="Stop")).to_be_visible()
    say(page, "/status")
    expect(page.locator(".message.assistant").last).to_contain_text("Status: working")
    page.reload()  # what is loaded anew is the list of now as well, not that of the last settled turn
    expect(page.locator("#todos li")).to_have_text(["buy milk"])
    expect(page.locator("#session-state")).to_have_text("working")
    say(page, "/todo")
    expect(page.locator(".message.assistant").last).to_contain_text("☐ buy milk")
    say(page, "/stop")
    expect(page.locator("#session-state")).to_be_empty()
    expect(page.locator("#todos li")).to_have_text(["buy milk"])


def test_it_is_readable_in_the_dark_and_on_a_phone(page: Page) -> None:
    page.emulate_media(color_scheme="dark")
    page.set_viewport_size({"width": 390, "height": 800})
    expect(page.get_by_label("Message", exact=True)).to_be_visible()
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.emulate_media(color_scheme="light")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != dark
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def unlock(page: Page, key: str) -> None:
    page.get_by_label("API key").fill(key)
    page.get_by_role("button", name="Unlock").click()


def test_a_locked_gateway_asks_for_a_key_that_no_script_can_read_afterwards(
    context: BrowserContext, problems: list[str], tmp_path: Path
) -> None:
    settings = {"GATEHOUSE_WORKERS": "1", "GATEHOUSE_API_KEYS": "the-right-key"}
    with GatewayProcess(tmp_path, settings) as locked:
        page = context.new_page()
        page.goto(locked.url)
        unlock(page, "a-wrong-key")
        expect(page.get_by_role("alert")).to_contain_text("does not open this gateway")
        problems.clear()  # the browser logs the 401
        unlock(page, "the-right-key")
        expect(page.locator("#live")).to_have_text("live")
        say(page, "hello")
        expect(page.locator(".message.assistant")).to_have_text(re.compile("hello"))
        page.reload()
        expect(page.locator("#live")).to_have_text("live")
        kept = "[...Object.values(localStorage), ...Object.values(sessionStorage), document.cookie].join()"
        assert page.evaluate(kept).find("the-right-key") == -1
        assert "gatehouse" not in page.evaluate("document.cookie")
        page.close()
    assert problems == []


def test_a_stranger_is_let_in_on_the_page_and_their_chat_appears_there(
    context: BrowserContext, problems: list[str], tmp_path: Path
) -> None:
    with running_platform() as platform:
        settings = {**platform.environment(), "GATEHOUSE_WORKERS": "1", "GATEHOUSE_ALLOW": ""}
        sender = Sender(platform.secrets)
        with GatewayProcess(tmp_path, settings) as gateway:
            page = context.new_page()
            page.goto(gateway.url)
            unlock(page, API_KEY)
            expect(page.locator("#live")).to_have_text("live")
            post(gateway, sender.telegram(4242, "hello"))
            told = platform.wait(1, "telegram")[0].text
            page.get_by_role("link", name="Access").click()
            expect(page.locator("#pairings .code")).to_have_text(re.compile(r"^[A-Z2-9]{8}$"))
            assert page.locator("#pairings .code").inner_text() in told
            page.get_by_role("button", name="Let in").click()
            expect(page.locator("#no-pairings")).to_be_visible()
            post(gateway, sender.telegram(4242, "add buy milk"))
            page.get_by_role("link", name="Chat").click()
            page.locator("#sessions a", has_text="4242").click()
            expect(page.locator("#todos li")).to_have_text(["buy milk"])
            expect(page.get_by_label("Message", exact=True)).to_be_disabled()
            page.close()
    assert problems == []


def test_a_question_about_a_call_is_answered_by_its_buttons_also_on_a_page_loaded_anew(
    scripted_page: Page, tmp_path: Path
) -> None:
    page, paid = scripted_page, tmp_path / "paid"
    question, buttons = page.locator("#question"), page.locator("#question button")
    for word in ("Deny", "Approve"):
        say(page, f'[[tool pay_out {{"path": "{paid}"}}]] [[then]] [[say {word.lower()} heard]]')
        expect(buttons).to_have_text(["Approve", "Deny"])
        page.reload()  # the turn rests in the store
        expect(page.get_by_text("I need your approval").last).to_be_visible()
        expect(buttons).to_have_text(["Approve", "Deny"])
        question.get_by_role("button", name=word).press("Enter")
        expect(question).to_be_hidden()
        expect(page.locator(".message.assistant", has_text=f"{word.lower()} heard")).to_have_count(1)
        assert paid.exists() == (word == "Approve")
    page.reload()
    expect(page.locator(".message.assistant").last).to_contain_text("approve heard")
    expect(question).to_be_hidden()


def test_a_dead_letter_is_shown_and_tried_again_on_the_page(scripted_page: Page) -> None:
    page = scripted_page
    say(page, "[[tool die {} times=1]] poison")
    expect(page.locator(".message.assistant.failed")).to_have_count(1)
    expect(page.locator("#dead-badge")).to_have_text("1")
    page.get_by_role("link", name="Dead letters").click()
    expect(page.locator("#dead li")).to_contain_text("poison")
    page.locator("#dead").get_by_role("button", name="Retry").click()
    expect(page.locator("#no-dead")).to_be_visible()
    page.get_by_role("link", name="Chat").click()
    expect(page.locator(".message.assistant")).to_contain_text("poison")


def post(gateway: GatewayProcess, request: SignedRequest) -> None:
    answer = httpx2.post(f"{gateway.url}{request.path}", content=request.body, headers=request.headers)
    assert answer.status_code == 200, answer.text
