"""What a model writes as Markdown, as the console shows it, in a real Chromium."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from loadtests.gateway_process import GatewayProcess

pytestmark = pytest.mark.browser

SHOW = """async (text) => {
  const { markdown } = await import("/markdown.js");
  const shown = document.createElement("div");
  const began = performance.now();
  shown.append(markdown(text));
  const tookMs = performance.now() - began;
  const made = [...shown.querySelectorAll("*")];
  return {
    html: shown.innerHTML,
    took_ms: tookMs,
    made: made.map((one) => [one.localName, ...one.getAttributeNames()]),
    targets: made.filter((one) => one.href).map((one) => one.href),
  };
}"""


@pytest.fixture(scope="module")
def page(browser: Browser, gateway: GatewayProcess) -> Iterator[Page]:
    page = browser.new_page()
    page.goto(gateway.url)
    yield page
    page.close()


def shown(page: Page, text: str) -> Any:
    return page.evaluate(SHOW, text)


def link(target: str, label: str) -> str:
    return f'<a href="{target}" target="_blank" rel="noopener noreferrer">{label}</a>'


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("two\nlines\n\nnext", "<p>two\nlines</p><p>next</p>"),
        ("**b** *i* _i_ ~~s~~ `c`", "<p><strong>b</strong> <em>i</em> <em>i</em> <del>s</del> <code>c</code></p>"),
        ("**bold with *em* in it**", "<p><strong>bold with <em>em</em> in it</strong></p>"),
        ("snake_case_name 2 * 3 * 4 ** 5", "<p>snake_case_name 2 * 3 * 4 ** 5</p>"),
        ("``a ` b`` and `**raw**`", "<p><code>a ` b</code> and <code>**raw**</code></p>"),
        ("## Head #", '<p class="heading level-2">Head</p>'),
        ("- a\n- b\n  1. c\n\n- d", "<ul><li><span>a</span></li><li><span>b</span><ol><li><span>c</span></li></ol></li>"
         "<li><span>d</span></li></ul>"),
        ("3. x\n4) y", '<ol start="3"><li><span>x</span></li><li><span>y</span></li></ol>'),
        ("1. [ ] a\n2. [x] b", '<ol><li class="task open"><span>a</span></li><li class="task done"><span>b</span></li>'
         "</ol>"),
        ("> q\n> r\nafter", "<blockquote><p>q\nr</p></blockquote><p>after</p>"),
        ("```py\na < b\n\nc\n```\nd", "<pre><code>a &lt; b\n\nc</code></pre><p>d</p>"),
        ("~~~\nstill open", "<pre><code>still open</code></pre>"),
        ("---", "<hr>"),
        ("| a | b |\n|---|:-:|\n| 1 | **2** |", '<div class="wide-table"><table><tr><th>a</th><th>b</th></tr>'
         "<tr><td>1</td><td><strong>2</strong></td></tr></table></div>"),
        ("| no table |", "<p>| no table |</p>"),
        ("[l](https://e.com/a_(b)) http://e.com/x_y.",
         f"<p>{link('https://e.com/a_(b)', 'l')} {link('http://e.com/x_y', 'http://e.com/x_y')}.</p>"),
    ],
)  # fmt: skip
def test_markdown_becomes_elements(page: Page, text: str, html: str) -> None:
    assert shown(page, text)["html"] == html


@pytest.mark.parametrize(
    "text",
    [
        "<img src=x onerror=alert(1)><script>alert(1)</script>", "[x](javascript:alert(1))", "[x](JaVaScRiPt:alert(1))",
        "[x](data:text/html,<b>)", "[x](vbscript:y)", '[x](https://e.com/"onmouseover="alert(1))', "`<b>`", "**<b>**",
        "# <h1 onclick=x>", "| <i> |\n|---|\n| <u> |", "```<b>\n</code></pre><b>\n```", "<https://e.com>",
    ],
)  # fmt: skip
def test_nothing_in_it_is_markup(page: Page, text: str) -> None:
    found = shown(page, text)["made"]
    assert {name for name, *_ in found} <= {"p", "a", "code", "pre", "strong", "table", "tr", "th", "td", "div"}
    assert {attribute for _, *attributes in found for attribute in attributes} <= {"class", "href", "target", "rel"}
    assert all(target.startswith("https://e.com") for target in shown(page, text)["targets"])


@pytest.mark.parametrize("piece", "* **a_ `a [a _a_ ~~a >_ -_ | [a]( http:// __-_a\n ```\n *a_ 1._".split(" "))
def test_no_text_keeps_the_page_waiting(page: Page, piece: str) -> None:
    """Twenty thousand characters of whatever invites a renderer to try again and again."""
    piece = piece.replace("_", " ")
    assert shown(page, "x\n\n" + piece * (20_000 // len(piece)))["took_ms"] < 5000


@pytest.mark.parametrize("line", ["# a{}b", "# a{}#b", "```{}!", "- {}a\u2028b", "1. [ ] {}a\u2028b"])
def test_no_line_keeps_the_page_waiting(page: Page, line: str) -> None:
    assert shown(page, line.format(" " * 100_000))["took_ms"] < 1000
