"""What a person who reads the console may rely on: nothing moves, nothing said is lost, everybody can use it."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from loadtests.gateway_process import GatewayProcess
from loadtests.provider import RunningProvider, running_provider

pytestmark = pytest.mark.browser

PATIENCE_MS = 15_000
PAGES = {
    "Chat": "/",
    "Sessions": "/sessions",
    "Workers": "/workers",
    "Dead letters": "/dead",
    "Queues & spend": "/spend",
    "Access": "/access",
}


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context(viewport={"width": 1280, "height": 700})
    context.set_default_timeout(PATIENCE_MS)
    expect.set_options(timeout=PATIENCE_MS)
    yield context
    context.close()


@pytest.fixture
def provider() -> Iterator[RunningProvider]:
    with running_provider() as provider:
        yield provider


def settings(provider: RunningProvider) -> dict[str, str]:
    return {"GATEHOUSE_MODEL": "openai:scripted", "OPENAI_BASE_URL": provider.openai_url, "GATEHOUSE_WORKERS": "1"}


def opened(context: BrowserContext, url: str) -> Page:
    page = context.new_page()
    page.goto(url)
    expect(page.locator("#live")).to_have_text("live")
    return page


def say(page: Page, text: str) -> None:
    page.get_by_label("Message", exact=True).fill(text)
    page.get_by_role("button", name="Send").click()


def test_a_reader_who_scrolled_up_stays_where_they_are(context: BrowserContext, gateway: GatewayProcess) -> None:
    page = opened(context, gateway.url)
    long = "\n".join(f"line {number}" for number in range(60))
    say(page, long)
    expect(page.locator(".message.assistant")).to_contain_text("line 59")
    page.locator("#messages").evaluate("box => { box.scrollTop = 120 }")
    page.evaluate("getSelection().selectAllChildren(document.querySelector('.message.user'))")
    other = opened(context, page.url)
    other.goto(gateway.url)
    say(other, "from another tab")
    expect(page.locator(".message.user")).to_have_count(2)
    assert page.locator("#messages").evaluate("box => box.scrollTop") == 120
    assert "line 30" in page.evaluate("getSelection().toString()")
    expect(page.locator("#to-end")).to_be_visible()
    page.locator("#to-end").click()
    expect(page.locator("#to-end")).to_be_hidden()


def test_a_page_loaded_anew_in_mid_turn_shows_question_answer_so_far_and_stop(
    context: BrowserContext, provider: RunningProvider, tmp_path: Path
) -> None:
    with GatewayProcess(tmp_path, settings(provider)) as gateway:
        page = opened(context, gateway.url)
        say(page, "[[slow 0.1]] one two three four five six seven eight nine ten eleven twelve")
        expect(page.locator(".message.assistant")).to_contain_text("one ")
        page.reload()
        expect(page.locator(".message.assistant")).to_contain_text("one two")
        expect(page.get_by_role("button", name="Stop")).to_be_visible()
        page.get_by_role("button", name="Stop").click()
        expect(page.get_by_role("button", name="Send")).to_be_visible()
        expect(page.locator(".message.assistant")).to_have_count(1)


def test_what_is_said_while_the_gateway_is_away_is_sent_once_when_it_is_back(
    context: BrowserContext, tmp_path: Path
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    with GatewayProcess(tmp_path, {"GATEHOUSE_WORKERS": "1", "PORT": port}) as gateway:
        page = opened(context, gateway.url)
        say(page, "add buy milk")
        expect(page.locator("#todos li")).to_have_text(["buy milk"])
        gateway.terminate()
        say(page, "add call mum")
        expect(page.locator(".message.user.unsent")).to_contain_text("add call mum")
        gateway.start()
        expect(page.locator("#todos li")).to_have_text(["buy milk", "call mum"])
        expect(page.locator(".message.user")).to_have_text(["add buy milk", "add call mum"])
        expect(page.locator(".message.unsent")).to_have_count(0)


def test_code_in_an_answer_is_copied_by_a_button(context: BrowserContext, gateway: GatewayProcess) -> None:
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = opened(context, gateway.url)
    say(page, "so:\n```\nprint(1)\n```")
    page.get_by_role("button", name="Copy this code").click()
    expect(page.get_by_role("button", name="Copy this code")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == "print(1)"


def test_every_page_is_reached_by_keyboard_alone(context: BrowserContext, gateway: GatewayProcess) -> None:
    page = opened(context, gateway.url)
    for name, address in PAGES.items():
        door = page.get_by_role("navigation", name="Pages").get_by_role("link", name=name)
        door.focus()
        page.keyboard.press("Enter")
        expect(page).to_have_url(re.compile(re.escape(address) + "$"))
        expect(door).to_have_attribute("aria-current", "page")
    page.go_back()
    expect(page).to_have_url(re.compile("/spend$"))
    expect(page.locator("#plot-queue")).to_be_visible()
