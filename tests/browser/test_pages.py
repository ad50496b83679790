"""Every page with much on it: how it looks, and whether what it is for can be done by mouse and by keyboard alone.

With ``SCREENSHOTS=DIRECTORY`` in the environment a picture of each page is written there, in the light and in the dark,
on a desktop and on a phone.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, Route, expect

from loadtests.gateway_process import GatewayProcess
from loadtests.platform import API_KEY
from tests.browser.busy import SESSIONS, TALK, busy_gateway

pytestmark = pytest.mark.browser

PATIENCE_MS = 15_000
DEVICES = {"desktop": (1360, 860), "phone": (390, 844)}


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    with busy_gateway(tmp_path_factory.mktemp("busy")) as gateway:
        yield gateway


def addresses(gateway: GatewayProcess) -> dict[str, str]:
    """Return a name and an address of every page, and of one more where it has another face."""
    dead = gateway.get("/v1/dead")["dead"]
    turns = gateway.get("/v1/turns")["turns"]
    return {
        "chat": f"/chat/{quote(TALK, safe='')}",
        "chat-new": "/chat/api%3Adefault%3Anew",
        "chat-of-a-platform": f"/chat/{quote(turns[0]['session'], safe='')}",
        "sessions": "/sessions",
        "message-running": f"/messages/{turns[-1]['message_id']}",
        "message-dead": f"/messages/{dead[0]['id']}",
        "workers": "/workers",
        "dead": "/dead",
        "spend": "/spend",
        "access": "/access",
    }


@contextmanager
def opened(
    browser: Browser, gateway: GatewayProcess, device: str = "desktop", scheme: str = "light", *, axe: bool = False
) -> Iterator[Page]:
    """Open the console with a key; at the end its log has to be empty."""
    width, height = DEVICES[device]
    context = browser.new_context(
        color_scheme="dark" if scheme == "dark" else "light",
        viewport={"width": width, "height": height},
        is_mobile=device == "phone",
        has_touch=device == "phone",
        bypass_csp=axe,  # what looks for barriers is put into the page
    )
    context.set_default_timeout(PATIENCE_MS)
    expect.set_options(timeout=PATIENCE_MS)
    problems: list[str] = []
    context.on("console", lambda said: problems.append(said.text) if said.type in {"error", "warning"} else None)
    context.on("response", lambda answer: problems.append(answer.url) if answer.status >= 400 else None)
    context.on("weberror", lambda error: problems.append(str(error.error)))
    page = context.new_page()
    page.goto(gateway.url)
    page.get_by_label("API key").fill(API_KEY)
    page.keyboard.press("Enter")
    expect(page.locator("#live")).to_have_text("live")
    yield page
    context.close()
    assert problems == []


def an_hour_of_load(route: Route) -> None:
    """Answer samples of an hour, which no test waits for."""
    now = time.time()
    route.fulfill(json={"every_s": 5, "samples": [sample(now - 3600 + at * 5, at) for at in range(720)]})


def sample(at: float, number: int) -> dict[str, float]:
    wave = number % 240 / 240
    return {
        "at": at, "waiting": int(20 * wave), "running": int(9 - 6 * wave), "undelivered": int(number % 97 == 0) * 3,
        "dead": 4, "oldest_s": 12 * wave, "lag_ms": 1.5 + number % 3 + 15 * (number % 180 == 0),
        "tokens_per_min": 9000 + 4000 * wave, "gateway_rss_bytes": 91e6 + number * 3000, "workers_rss_bytes": 310e6,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("device", "scheme", "rules"),
    [
        ("desktop", "light", []),
        ("desktop", "dark", ["color-contrast"]),
        ("phone", "light", None),
        ("phone", "dark", None),
    ],
)
def test_every_page_fits_its_screen_and_shuts_nobody_out(
    browser: Browser, busy: GatewayProcess, device: str, scheme: str, rules: list[str] | None
) -> None:
    """``rules`` of axe-core that each page is held to: all of them, those on colour in the dark, none on a phone."""
    directory = os.environ.get("SCREENSHOTS")
    found: list[tuple[str, str]] = []
    with opened(browser, busy, device, scheme, axe=rules is not None) as page:
        page.route("**/v1/stats", an_hour_of_load)
        for name, address in addresses(busy).items():
            page.goto(busy.url + address)
            expect(page.locator("#live")).to_have_text("live")
            expect(page.locator("#page :is(h2, .plot canvas)").first).to_be_visible()
            if directory:
                page.wait_for_timeout(600)  # until nothing moves
                page.screenshot(path=Path(directory) / f"{name}-{scheme}-{device}.png", animations="disabled")
            if page.evaluate("document.documentElement.scrollWidth > innerWidth"):
                found.append((name, "wider than the screen"))
            if rules is not None:
                options = {"runOnly": rules} if rules else {}
                violations = Axe().run(page, options=options).response["violations"]
                found += [(name, one["id"]) for one in violations if one["impact"] in {"serious", "critical"}]
    assert found == []


def test_a_conversation_tells_when_each_message_was_said(browser: Browser, busy: GatewayProcess) -> None:
    with opened(browser, busy) as page:
        page.goto(f"{busy.url}/chat/{quote(TALK, safe='')}")
        expect(page.locator(".message.user")).to_have_count(3)
        expect(page.locator(".day").last).to_have_text("Today")
        assert re.fullmatch(r"\d\d:\d\d", str(page.locator(".message").first.get_attribute("data-time")))
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        page.get_by_role("button", name="Copy this message").last.click()
        assert page.evaluate("navigator.clipboard.readText()").startswith("Done: it stands under")


def test_a_session_is_found_by_the_name_of_its_channel_or_person(browser: Browser, busy: GatewayProcess) -> None:
    key, title, *_ = SESSIONS[3]
    with opened(browser, busy) as page:
        page.goto(f"{busy.url}/sessions")
        expect(page.get_by_label("Find a session")).to_be_focused()
        page.keyboard.type("ana luc")
        expect(page.locator("#session-rows tr")).to_have_count(1)
        page.keyboard.press("Tab")
        page.keyboard.press("Tab")
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name=title)).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.locator("#session-name")).to_have_text(title)
        expect(page.locator("#session-where")).to_have_text(key)


def act_by_keyboard(page: Page, name: str) -> None:
    """Press the first button of this name."""
    page.locator("main").get_by_role("button", name=name, exact=True).first.focus()
    page.keyboard.press("Enter")


def test_the_acts_of_every_page_need_no_mouse(browser: Browser, busy: GatewayProcess) -> None:
    with opened(browser, busy) as page:
        page.goto(f"{busy.url}/dead")
        expect(page.locator("#dead > li")).to_have_count(5)
        expect(page.get_by_role("link", name="Ana Lucía Fernández")).to_be_visible()  # and not the key of its session
        page.locator("#dead-query").focus()
        page.keyboard.type("INC-2291")
        expect(page.locator("#dead > li")).to_have_count(1)
        page.get_by_label("all shown").focus()
        page.keyboard.press("Space")
        act_by_keyboard(page, "Purge chosen")
        page.keyboard.press("Escape")  # thought better of it
        expect(page.locator("#dead > li")).to_have_count(1)
        act_by_keyboard(page, "Purge chosen")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        expect(page.locator("#no-fitting-dead")).to_be_visible()
        page.get_by_label("Find dead letters").fill("")
        expect(page.locator("#dead-count")).to_have_text("4")

        page.goto(f"{busy.url}/access")
        act_by_keyboard(page, "Let in")
        expect(page.locator("#pairings > li")).to_have_count(1)
        expect(page.locator("#approved > li")).to_have_count(2)
        act_by_keyboard(page, "Revoke")
        page.get_by_role("button", name="Revoke").last.press("Enter")
        expect(page.locator("#approved > li")).to_have_count(1)
        expect(page.locator("#audit tr").first).to_contain_text("pairing revoked")
        expect(page.locator("#audit tr").nth(1)).to_contain_text("telegram:555100")

        turn = busy.get("/v1/turns")["turns"][-1]["message_id"]
        page.goto(f"{busy.url}/messages/{turn}")
        act_by_keyboard(page, "Cancel")
        expect(page.locator("#message-facts .state-chip")).not_to_have_text("running")
        expect(page.locator("#timeline")).to_contain_text("done")


def test_a_killed_worker_is_seen_to_end_and_to_be_replaced(browser: Browser, busy: GatewayProcess) -> None:
    """One that hung is told of with the message that it hung in, and that one with its stacks."""
    with opened(browser, busy) as page:
        hung = next(hang for hang in busy.get("/v1/hangs")["hangs"] if hang["message"])
        # on a machine under load others are late too, and one of them may be the last
        page.route("**/v1/hangs", lambda route: route.fulfill(json={"hangs": [hung]}))
        page.goto(f"{busy.url}/workers")
        page.locator("#hang-facts a").click()
        expect(page.locator("#message-text")).to_contain_text("reconcile the ledger")
        expect(page.locator("#message-stacks")).to_contain_text("in block_the_loop")
        page.goto(f"{busy.url}/workers")
        expect(page.locator("#workers .state.ready")).to_have_count(2)
        page.get_by_role("button", name="Kill").first.click()
        page.get_by_role("dialog").get_by_role("button", name="Kill").click()
        expect(page.locator("#workers-note")).to_contain_text("2 restarts")
        expect(page.locator("#workers .state.ready")).to_have_count(2)
        page.get_by_role("button", name="Recycle").first.click()
        busy.wait_for("worker_recycled")
        expect(page.locator("#workers .state.ready")).to_have_count(2)
        expect(page.locator("#workers-note")).to_contain_text("2 restarts")  # a recycled one is none
        page.goto(f"{busy.url}/access")
        expect(page.locator("#audit .what")).to_contain_text(["worker recycled", "worker killed"])
