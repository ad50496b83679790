"""HTML as text: what a reader of the page sees, in time that grows with the page and no faster."""

from __future__ import annotations

import asyncio
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.tools.fetch.page_text import page_text

URL = "https://example.com/a/b"


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("just text", "just text"),
        ("<title>The  <b>title</title><p>Body", "The <b>title\n\nBody"),
        ("<p>One</p><p>Two<br>three</p>", "One\n\nTwo\nthree"),
        ("<h2>Head</h2>  text", "## Head\ntext"),
        ("<ul><li>a<li>b</ul>", "- a\n- b"),
        ("<ul>\n <li>a</li>\n <li>b</li>\n</ul>\nc", "- a\n- b\nc"),
        ("<table><tr><th>k<th>v</tr><tr><td>1</td><td>2</td></tr></table>", "| k | v\n| 1 | 2"),
        ("a <b>bold</b> word", "a bold word"),
        ("so:<pre>\nif x:\n    <b>y()</b>\n</pre>done", "so:\n\n```\nif x:\n    y()\n```\ndone"),
        ("<pre></pre></pre>", "```\n```"),
        (
            '<a href="c">here</a>, <a href="/d">there</a>',
            "[here](https://example.com/a/c), [there](https://example.com/d)",
        ),
        ("<a href='https://o.example/?a=1&amp;b=2'>o</a>", "[o](https://o.example/?a=1&b=2)"),
        ("x<a href=/y> y </a>z", "x [y](https://example.com/y) z"),
        ('<base href="https://o.example/x/"><a href=y>y</a>', "[y](https://o.example/x/y)"),
        ('<a href="javascript:alert(1)">js</a> <a href="#top">top</a> <a>none</a>', "js top none"),
        ('<a href="http://[">bad</a>', "bad"),
        ("<a href=/1>one<a href=/2>two</a>", "[one](https://example.com/1)[two](https://example.com/2)"),
        ("<script>if (a < b) alert('<p>x</p>')</script>text", "text"),
        ("<STYLE>p > a {}</STYLE >text<script>never closed", "text"),
        ("a<svg><title>t</title><path d='M'></svg>b<svg/>c", "abc"),
        ("<!-- <p>no</p> -->yes<!-->still<!doctype html><?xml?>", "yesstill"),
        ("&lt;b&gt; &amp; &eacute;&#8364;&#x20AC; &unknown; &", "<b> & é€€ &unknown; &"),
        ("&#99999999999999999999; &#0;", "&#99999999999999999999; \ufffd"),
        ('<img src=x alt="a cat"><img src=y>', "[image: a cat]"),
        ('<p title="a > b">text</p>', "text"),
        ("1 < 2 and <3 and a<b", "1 < 2 and <3 and a"),
        ("<p>one<!-- never closed", "one"),
        ("", ""),
        ("\0<p\0>x", "x"),
    ],
)
async def test_a_page_reads_as_its_reader_sees_it(source: str, text: str) -> None:
    assert await page_text(source, URL) == text


@settings(max_examples=200)
@given(st.lists(st.sampled_from([*"<>/=\"'& \n!-", "a", "href", "svg", "script", "title", "pre", "li", "&amp;", "é"])))
def test_no_soup_breaks_it(pieces: list[str]) -> None:
    asyncio.run(page_text("".join(pieces), URL))


NASTY = {
    "tags that never close": "<a ",
    "quotes that never close": "<a b='",
    "comments that never close": "<!-- ",
    "scripts that never close": "<script>",
    "titles": "<title>x</title>",
    "declarations": "<!a ",
    "lone brackets": "<",
    "entities": "&a",
    "long entities": "&#x41;&lt;",
    "spaces": "<a   ",
    "slashes": "<a ////",
    "nested": "<div><ul><li>",
    "links": "<a href=x>y",
    "one tag of attributes": "a=b ",
    "dropped": "<svg>",
}


@pytest.mark.parametrize("piece", NASTY.values(), ids=NASTY.keys())
async def test_a_nasty_page_takes_time_in_proportion_and_leaves_the_loop_to_others(piece: str) -> None:
    source = ("<x " if piece == "a=b " else "") + piece * (250_000 // len(piece))
    spent, worst = await time_of(source)
    assert spent < 2.5
    assert worst < 0.5


@pytest.mark.parametrize(
    ("begin", "piece"), [("<a ", "x "), ("<a href='", "&lt;"), ("<img alt='", "&lt;"), ("<title>", "&lt;")]
)
async def test_one_tag_as_long_as_a_page_may_be_leaves_the_loop_to_others(begin: str, piece: str) -> None:
    _, worst = await time_of(begin + piece * (1_000_000 // len(piece)) + "'></title>")
    assert worst < 0.2


async def time_of(source: str) -> tuple[float, float]:
    """Read a page; return the seconds of work it took, and the longest of them without a look at the loop."""
    worst, last, over = 0.0, time.thread_time(), False

    async def watch() -> None:
        nonlocal worst, last
        while not over:
            await asyncio.sleep(0)
            worst, last = max(worst, time.thread_time() - last), time.thread_time()

    watching = asyncio.create_task(watch())
    began = time.thread_time()
    await page_text(source, URL)
    spent = time.thread_time() - began
    over = True
    await watching
    return spent, worst
